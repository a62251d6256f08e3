"""M30: grouping a probability map into candidates, against the plain way and by its laws."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from carina.geometry import Geometry
from carina.pipeline.group import group

SHAPE = (12, 16, 18)
GEOMETRY = Geometry.from_axes(SHAPE, spacing_zyx_mm=(1.5, 1.0, 1.0), origin_lps=(-40, 20, 300))
EVERYWHERE = np.ones(SHAPE, bool)


def smooth_map(seed: int) -> np.ndarray:
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), 1.0)
    return np.clip(0.5 + 1.2 * field, 0, 1).astype(np.float32)


def bumps(*centers, sigma=1.5) -> np.ndarray:
    index = np.stack(np.indices(SHAPE), -1)
    fields = [np.exp(-((index - center) ** 2).sum(-1) / (2 * sigma**2)) for center in centers]
    return np.max(fields, 0).astype(np.float32)


def whole(candidate, region) -> np.ndarray:
    """The region in the volume."""
    mask = np.zeros(SHAPE, bool)
    mask[tuple(slice(a, b) for a, b in zip(*candidate.box_zyx, strict=True))] = region
    return mask


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.5, 0.6, 0.75]), st.sampled_from([0.0, 4.0, 20.0]))
def test_candidates_equal_those_found_one_by_one(seed, threshold, least):
    p = smooth_map(seed)
    inside = np.random.default_rng(seed + 1).random(SHAPE) > 0.1
    found, regions = group(p, inside, GEOMETRY, threshold=threshold, min_volume_mm3=least)
    components, n = ndimage.label((p > threshold) & inside, np.ones((3, 3, 3)))
    kept = [components == k for k in range(1, n + 1) if (components == k).sum() * 1.5 >= least]
    assert len(found) == len(kept)
    covered = np.zeros(SHAPE, int)
    for candidate, part in zip(found, regions, strict=True):
        region = whole(candidate, part)
        covered += region
        (same,) = [mask for mask in kept if (mask & region).any()]
        np.testing.assert_array_equal(region, same)
        voxels = np.argwhere(region)
        assert candidate.center_zyx == pytest.approx(np.average(voxels, axis=0, weights=p[region]))
        assert candidate.center_lps == pytest.approx(GEOMETRY.to_lps(candidate.center_zyx))
        assert candidate.volume_mm3 == pytest.approx(1.5 * region.sum())
        assert candidate.score == pytest.approx(np.sort(p[region])[::-1][:40].astype(float).mean())
        assert candidate.box_zyx == (tuple(voxels.min(0)), tuple(voxels.max(0) + 1))
    np.testing.assert_array_equal(covered, sum(kept, np.zeros(SHAPE, int)))
    assert sorted((c.score for c in found), reverse=True) == [c.score for c in found]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 4.0, 20.0]))
def test_lower_thresholds_add_regions_that_hold_none_found_above_a_higher_one(seed, least):
    p = smooth_map(seed)
    found, regions = group(p, EVERYWHERE, GEOMETRY, threshold=0.9, lower_thresholds=(0.6, 0.75), min_volume_mm3=least)
    expected: list[tuple[float, np.ndarray]] = []
    for cut in (0.9, 0.75, 0.6):
        components, n = ndimage.label(p > cut, np.ones((3, 3, 3)))
        kept = [components == k for k in range(1, n + 1) if (components == k).sum() * 1.5 >= least]
        expected += [(cut, mask) for mask in kept if not any((mask & higher).any() for _, higher in expected)]
    assert len(found) == len(expected)
    for candidate, part in zip(found, regions, strict=True):
        region = whole(candidate, part)
        ((cut, same),) = [pair for pair in expected if (pair[1] & region).any()]
        np.testing.assert_array_equal(region, same)
        assert candidate.threshold == cut
        assert candidate.score == pytest.approx(np.sort(p[region])[::-1][:40].astype(float).mean())
    assert sorted((c.score for c in found), reverse=True) == [c.score for c in found]


def test_a_lower_threshold_finds_what_is_less_sure_and_merges_no_neighbours():
    p = np.maximum(bumps((3, 4, 4), (3, 4, 9), sigma=2.0), 0.8 * bumps((9, 12, 14)))
    merged, _ = group(p, EVERYWHERE, GEOMETRY, threshold=0.4, min_volume_mm3=0)
    found, regions = group(p, EVERYWHERE, GEOMETRY, threshold=0.9, lower_thresholds=(0.4,), min_volume_mm3=0)
    assert len(merged) == 2
    assert [c.threshold for c in found] == [0.9, 0.9, 0.4]
    assert found[2].center_zyx == pytest.approx((9, 12, 14), abs=0.1)
    np.testing.assert_array_equal(whole(found[2], regions[2]), (p > 0.4) & (np.indices(SHAPE)[0] > 6))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0, 1, 2]))
def test_a_flip_of_the_map_flips_the_candidates(seed, axis):
    p = smooth_map(seed)
    found, _ = group(p, EVERYWHERE, GEOMETRY, threshold=0.7, min_volume_mm3=2)
    mirrored, _ = group(np.flip(p, axis).copy(), EVERYWHERE, GEOMETRY, threshold=0.7, min_volume_mm3=2)
    back = np.array([c.center_zyx for c in mirrored]).reshape(-1, 3)
    back[:, axis] = SHAPE[axis] - 1 - back[:, axis]
    expected = np.array([c.center_zyx for c in found]).reshape(-1, 3)
    np.testing.assert_allclose(np.sort(back, 0), np.sort(expected, 0), atol=1e-9)


def test_an_empty_map_has_no_candidates():
    found, regions = group(np.zeros(SHAPE, np.float32), EVERYWHERE, GEOMETRY, threshold=0.5, min_volume_mm3=0)
    assert found == regions == []


def test_a_single_voxel_is_not_lost():
    p = np.zeros(SHAPE, np.float32)
    p[4, 5, 6] = 0.8
    (candidate,), (region,) = group(p, EVERYWHERE, GEOMETRY, threshold=0.5, min_volume_mm3=0)
    assert candidate.center_zyx == (4, 5, 6)
    assert candidate.box_zyx == ((4, 5, 6), (5, 6, 7))
    assert candidate.score == pytest.approx(0.8)
    assert region.all()


@pytest.mark.parametrize("edge", [(0, 0, 0), (11, 15, 17), (0, 15, 17), (11, 0, 0), (5, 15, 0)])
def test_voxels_at_opposite_edges_do_not_touch(edge):
    p = np.zeros(SHAPE, np.float32)
    p[edge] = p[tuple(np.add(edge, (0, 1, 1)) % SHAPE)] = 0.8
    expected = ndimage.label(p > 0.5, np.ones((3, 3, 3)))[1]
    assert len(group(p, EVERYWHERE, GEOMETRY, threshold=0.5, min_volume_mm3=0)[0]) == expected


def test_voxels_that_touch_at_a_corner_are_one_candidate():
    p = np.zeros(SHAPE, np.float32)
    p[4, 5, 6] = p[5, 6, 7] = 0.8
    (candidate,), _ = group(p, EVERYWHERE, GEOMETRY, threshold=0.5, min_volume_mm3=0)
    assert candidate.volume_mm3 == 3.0


def test_the_threshold_itself_does_not_count():
    p = np.full(SHAPE, 0.5, np.float32)
    assert group(p, EVERYWHERE, GEOMETRY, threshold=0.5, min_volume_mm3=0)[0] == []


def test_nothing_outside_the_lungs_is_a_candidate():
    p = bumps((4, 5, 5), (8, 11, 13))
    inside = EVERYWHERE.copy()
    inside[:, 8:] = False
    (candidate,), _ = group(p, inside, GEOMETRY, threshold=0.5, min_volume_mm3=0)
    assert candidate.center_zyx == pytest.approx((4, 5, 5), abs=1e-6)


@pytest.mark.slow
def test_a_whole_scan_is_grouped_far_faster_than_over_whole_volumes():
    """On an idle machine the ratio is over 200 (docs/concepts/performance.md)."""
    from benchmarks import textbook

    p = np.zeros((40, 512, 512), np.float32)
    for center in np.random.default_rng(0).integers((2, 100, 100), (38, 400, 400), (20, 3)):
        p[tuple(slice(c - 2, c + 3) for c in center)] = 0.9
    inside, geometry = np.ones(p.shape, bool), Geometry.from_axes(p.shape)
    begin = time.process_time()
    centers = textbook.group(p, inside, 0.5, 1)
    middle = time.process_time()
    found, _ = group(p, inside, geometry, threshold=0.5, min_volume_mm3=1.0)
    end = time.process_time()
    np.testing.assert_allclose(np.sort([c.center_zyx for c in found], 0), np.sort(centers, 0), atol=1e-4)
    assert middle - begin > 30 * (end - middle)
