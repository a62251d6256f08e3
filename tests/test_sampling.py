"""Sampling is a pure function of seed and epoch, balanced as asked; batches are cut where they should be."""

from pathlib import Path

import numpy as np
import pytest

from carina.data.batches import cut_batch
from carina.data.sampling import (
    NEGATIVE,
    NODULE,
    RANDOM,
    CropList,
    Mined,
    every_candidate,
    malignancy_crops,
    nodule_crops,
    segmentation_crops,
)
from carina.data.store import Nodule, Scan
from carina.errors import InputError, TrainingError
from carina.io.luna import IGNORE

SHAPE = (40, 50, 60)
AFFINE = ((0.0, 0.0, 1.0, 0.0), (0.0, 1.0, 0.0, 0.0), (1.5, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))


def write_scan(folder: Path, name: str, nodules: tuple[Nodule, ...], negatives: int, seed: int) -> Scan:
    folder = folder / name
    folder.mkdir()
    rng = np.random.default_rng(seed)
    label = np.zeros(SHAPE, np.uint8)
    for n in nodules:
        z, y, x = (round(c) for c in n.center_zyx)
        label[z - 1 : z + 2, y - 2 : y + 3, x - 2 : x + 3] = n.label
    arrays = {
        "hu": rng.integers(-1000, 400, SHAPE).astype(np.int16),
        "label": label,
        "lung": np.ones(SHAPE, np.uint8),
        "negatives": rng.uniform(0, SHAPE, (negatives, 3)).astype(np.float32),
        "lung_points": rng.integers(0, SHAPE, (500, 3)).astype(np.int16),
    }
    for key, array in arrays.items():
        np.save(folder / f"{key}.npy", array)
    return Scan(name, name, name, "", None, 1.5, 3.0, SHAPE, AFFINE, nodules, folder=str(folder))


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> list[Scan]:
    """Four scans: many small nodules, one large nodule, only negatives, nothing at all."""
    folder = tmp_path_factory.mktemp("store")
    small = tuple(
        Nodule(k, (10.0 + k, 20.0, 15.0 + 3 * k), 3.5, 22.0, malignancy=0.0 if k < 6 else None) for k in range(1, 9)
    )
    large = (Nodule(1, (20.0, 25.0, 30.0), 18.0, 3000.0, malignancy=1.0),)
    return [
        write_scan(folder, "small", small, 10, 1),
        write_scan(folder, "large", large, 90, 2),
        write_scan(folder, "healthy", (), 5, 3),
        write_scan(folder, "empty", (), 0, 4),
    ]


def same(a: CropList, b: CropList) -> bool:
    return np.array_equal(a.scan, b.scan) and np.array_equal(a.center_zyx, b.center_zyx)


@pytest.mark.parametrize("draw", [segmentation_crops, nodule_crops, malignancy_crops])
def test_seed_and_epoch_decide_the_crops(scans, draw):
    first = draw(scans, 64, seed=1, epoch=2)
    assert same(first, draw(scans, 64, seed=1, epoch=2))
    assert not same(first, draw(scans, 64, seed=1, epoch=3))
    assert not same(first, draw(scans, 64, seed=2, epoch=2))


@pytest.mark.parametrize("draw", [segmentation_crops, nodule_crops, malignancy_crops])
@pytest.mark.parametrize("n", [1, 7, 64])
def test_as_many_crops_as_asked(scans, draw, n):
    assert len(draw(scans, n, seed=0, epoch=0)) == n


def test_segmentation_keeps_the_mix(scans):
    crops = segmentation_crops(scans, 1000, seed=0, epoch=0, mix=(0.5, 0.3, 0.2))
    assert np.bincount(crops.kind).tolist() == [200, 500, 300]


@pytest.mark.parametrize(("n", "mix"), [(203, (0.5, 0.5, 0)), (25, (0.7, 0.3, 0)), (9, (0.5, 0.5, 0)), (7, (1, 1, 1))])
def test_no_share_is_rounded_into_another(scans, n, mix):
    counts = np.bincount(segmentation_crops(scans, n, seed=0, epoch=0, mix=mix).kind, minlength=3)
    expected = n * np.array([mix[2], mix[0], mix[1]]) / sum(mix)
    assert counts.sum() == n
    assert np.abs(counts - expected).max() <= 1
    assert counts[0] == 0 or mix[2] > 0


def test_scans_without_nodules_take_part(scans):
    crops = segmentation_crops(scans, 1000, seed=0, epoch=0)
    assert (crops.scan == 2).sum() > 100
    assert (crops.scan == 3).sum() > 30


def test_negatives_come_equally_from_every_scan_that_has_any(scans):
    crops = segmentation_crops(scans, 6000, seed=0, epoch=0)
    counts = np.bincount(crops.scan[crops.kind == NEGATIVE], minlength=4)
    assert counts[3] == 0
    assert counts[:3] == pytest.approx(500, rel=0.15)


@pytest.mark.parametrize(("balance", "share"), [(0.0, 1 / 9), (1.0, 1 / 2)])
def test_size_balance_evens_out_the_sizes(scans, balance, share):
    crops = segmentation_crops(scans, 4000, seed=0, epoch=0, mix=(1, 0, 0), size_balance=balance)
    assert (crops.scan == 1).mean() == pytest.approx(share, abs=0.03)


def test_nodules_lie_within_the_jitter_of_the_center(scans):
    crops = segmentation_crops(scans, 500, seed=0, epoch=0, jitter_mm=(6.0, 12.0, 12.0))
    offsets = [
        (c - scans[s].nodules[k].center_zyx) * np.array([1.5, 1, 1])
        for s, c, k in zip(crops.scan, crops.center_zyx, crops.nodule, strict=True)
        if k >= 0
    ]
    assert (np.abs(offsets) <= np.array([6.76, 12.51, 12.51])).all()
    assert np.abs(offsets).max(axis=0) == pytest.approx([6, 12, 12], abs=1)


def test_nodule_crops_are_half_nodules_and_every_nodule_comes_equally_often(scans):
    crops = nodule_crops(scans, 90, seed=0, epoch=0)
    assert crops.target.sum() == 45
    assert np.array_equal(crops.target == 1, crops.kind == NODULE)
    _, counts = np.unique(np.stack([crops.scan, crops.nodule], 1)[crops.target == 1], axis=0, return_counts=True)
    assert counts.tolist() == [5] * 9


def test_without_balance_crops_come_as_they_are(scans):
    crops = nodule_crops(scans, 1000, seed=0, epoch=0, balanced=False)
    assert crops.target.mean() == pytest.approx(9 / (9 + 105), abs=0.002)


def test_random_crops_keep_off_nodules(scans):
    crops = nodule_crops(scans, 2000, seed=0, epoch=0, random_share=1.0)
    for s, center in zip(crops.scan[crops.kind == RANDOM], crops.center_zyx[crops.kind == RANDOM], strict=True):
        for n in scans[s].nodules:
            assert np.linalg.norm((center - n.center_zyx) * np.array([1.5, 1, 1])) >= max(n.diameter_mm / 2, 3)


def test_random_crops_keep_off_what_is_to_be_ignored(scans, tmp_path):
    ignored = write_scan(tmp_path, "ignored", scans[1].nodules, 0, 5)
    label = np.load(Path(ignored.folder) / "label.npy")
    label[:, :25] = IGNORE
    np.save(Path(ignored.folder) / "label.npy", label)
    crops = nodule_crops([ignored], 400, seed=0, epoch=0)
    centers = crops.center_zyx[crops.kind == RANDOM]
    assert len(centers) == 200
    assert (label[tuple(centers.T)] == 0).all()


def test_labels_are_those_of_the_voxels_next_to_points(scans):
    label = scans[1].label_at(np.array([[20.4, 25.4, 29.6], [0.0, 0.0, 0.0], [-3.0, 25.0, 30.0], [20.0, 25.0, 60.0]]))
    assert label.tolist() == [1, 0, 0, 0]


def test_mined_negatives_join_in_unless_they_lie_on_a_nodule(scans):
    nothing = np.empty((0, 3))
    mined = {"empty": Mined(np.array([[5.0, 6, 7]]), nothing), "large": Mined(np.array([[20.0, 25, 31]]), nothing)}
    listed = every_candidate(scans)
    crops = nodule_crops(scans, 2000, seed=0, epoch=0, jitter_mm=0, random_share=0, mined=mined)
    places = {(s, *c) for s, c in zip(crops.scan.tolist(), crops.center_zyx.tolist(), strict=True)}
    assert (3, 5, 6, 7) in places
    assert len({p for p in places if p[0] == 1}) <= int((listed.scan == 1).sum())


def test_right_marks_are_learned_from_as_often_as_nodules(scans):
    large = scans[1].nodules[0]
    mark = np.add(large.center_zyx, (0, 3, 0))
    mined = {"large": Mined(np.empty((0, 3)), mark[None])}
    crops = nodule_crops(scans, 2000, seed=0, epoch=0, jitter_mm=0, random_share=0, mined=mined)
    nodules = sum(len(scan.nodules) for scan in scans)
    here = (crops.scan == 1) & (crops.center_zyx == np.rint(mark)).all(axis=1)
    assert set(zip(crops.target[here], crops.kind[here], crops.nodule[here], strict=True)) == {(1, NODULE, 0)}
    assert here.sum() == pytest.approx(1000 / (nodules + 1), abs=1)


def test_malignancy_takes_known_nodules_only_one_to_one(scans):
    crops = malignancy_crops(scans, 40, seed=0, epoch=0)
    said = [scans[s].nodules[k].malignancy for s, k in zip(crops.scan, crops.nodule, strict=True)]
    assert said == crops.target.astype(float).tolist()
    assert crops.target.sum() == 20


def test_every_candidate_lists_all_or_the_same_few_of_each_scan(scans):
    crops = every_candidate(scans)
    assert np.bincount(crops.target).tolist() == [105, 9]
    few = every_candidate(scans, negatives_per_scan=8)
    assert np.bincount(few.scan[few.target == 0], minlength=4).tolist() == [8, 8, 5, 0]
    assert same(few, every_candidate(scans, negatives_per_scan=8))


def test_no_nodules_is_an_error_that_says_so(scans):
    with pytest.raises(TrainingError, match="none of the 2 scans holds a nodule"):
        segmentation_crops(scans[2:], 10, seed=0, epoch=0)
    with pytest.raises(TrainingError, match="both classes"):
        nodule_crops(scans[2:], 10, seed=0, epoch=0)
    with pytest.raises(TrainingError, match="0 malignant and 5 benign"):
        malignancy_crops(scans[:1], 10, seed=0, epoch=0)


def test_scans_without_negatives_fall_back_to_the_lungs(scans):
    crops = segmentation_crops(scans[3:], 10, seed=0, epoch=0, mix=(0, 0.5, 0.5))
    assert (crops.kind == RANDOM).all()


def reference_crop(array: np.ndarray, center: np.ndarray, shape: tuple[int, int, int], fill: int | None) -> np.ndarray:
    """Voxel by voxel; without ``fill`` the nearest voxel of the array stands outside of it."""
    index = np.indices(shape) + (center - np.array(shape) // 2).reshape(3, 1, 1, 1)
    size = np.array(array.shape).reshape(3, 1, 1, 1)
    inside = ((index >= 0) & (index < size)).all(axis=0)
    nearest = array[tuple(index.clip(0, size - 1))]
    return nearest if fill is None else np.where(inside, nearest, fill)


@pytest.mark.parametrize("shape", [(8, 12, 16), (7, 9, 11), (60, 20, 90)])
def test_batches_hold_what_lies_around_each_center(scans, shape):
    centers = np.array([[20, 25, 30], [0, 0, 0], [39, 49, 59], [-3, 10, 70], [200, 10, 10]])
    scan = np.array([0, 1, 2, 3, 0])
    crops = CropList(scan, centers, *[np.zeros(5, np.int64)] * 3)
    batch, bare = cut_batch(scans, crops, shape), cut_batch(scans, crops, shape, masks=False)
    for i, (s, c) in enumerate(zip(scan, centers, strict=True)):
        assert np.array_equal(batch.hu[i, 0], reference_crop(scans[s].hu(), c, shape, None))
        assert np.array_equal(bare.hu[i, 0], reference_crop(scans[s].hu(), c, shape, -1000))
        assert np.array_equal(batch.label[i, 0], reference_crop(scans[s].label(), c, shape, IGNORE))
        assert np.array_equal(batch.lung[i, 0], reference_crop(scans[s].lung(), c, shape, 0))


def test_a_lost_file_is_an_error_that_names_it(scans, tmp_path):
    lost = write_scan(tmp_path, "lost", scans[0].nodules, 3, 9)
    crops = every_candidate([lost])
    Path(lost.folder, "hu.npy").unlink()
    with pytest.raises(InputError, match=r"hu\.npy"):
        cut_batch([lost], crops, (8, 8, 8))
