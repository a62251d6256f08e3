"""Augmentation: each change does what its name says, only then, and every draw can be repeated."""

from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from carina.data.augment import AugmentSettings, Parameters, apply, draw
from carina.errors import UsageError
from carina.io.luna import IGNORE

SPACING = (1.5, 1.0, 1.0)
OFF = AugmentSettings.off()


def smooth_crops(batch: int = 2, shape: tuple[int, int, int] = (24, 36, 36)) -> Tensor:
    z, y, x = torch.meshgrid(*[torch.arange(n, dtype=torch.float32) for n in shape], indexing="ij")
    field = 200 * torch.sin(z / 5) + 300 * torch.cos(y / 7) * torch.sin(x / 6) + 5 * y - 400
    return field.repeat(batch, 1, 1, 1, 1)


def ball(center_mm: tuple[float, float, float] = (0, 0, 0), radius_mm: float = 6.0) -> tuple[Tensor, Tensor]:
    """HU crop and label of a ball, its centre given in mm from the middle of the crop."""
    shape = (25, 37, 37)
    grids = torch.meshgrid(*[torch.arange(n) - (n - 1) / 2 for n in shape], indexing="ij")
    r = sum((g * s - c) ** 2 for g, s, c in zip(grids, SPACING, center_mm, strict=True)) ** 0.5
    hu = 900 * torch.sigmoid((radius_mm - r) / 0.7) - 900
    return hu[None, None], (r < radius_mm).to(torch.uint8)[None, None]


def center_mm(mask: Tensor) -> Tensor:
    places = torch.nonzero(mask[0, 0]).float()
    return (places.mean(0) - (torch.tensor(mask.shape[2:]) - 1) / 2) * torch.tensor(SPACING)


def change(crops: Tensor, labels: Tensor | None = None, **tensors: Tensor) -> tuple[Tensor, Tensor | None]:
    return apply(crops, labels, Parameters.identity(len(crops)).replace(**tensors), spacing_zyx_mm=SPACING)


def test_identity_leaves_crops_bit_for_bit():
    crops = smooth_crops()
    labels = (crops > -400).to(torch.uint8)
    hu, moved = change(crops, labels)
    assert torch.equal(hu, crops)
    assert torch.equal(moved, labels)


def test_everything_off_draws_the_identity():
    drawn = draw(torch.Generator().manual_seed(1), 5, OFF)
    identity = Parameters.identity(5)
    for f in fields(Parameters):
        if f.name not in ("noise_start", "thick_phase"):
            assert torch.equal(getattr(drawn, f.name), getattr(identity, f.name)), f.name


CHANGES = {
    "flip": ({"flip": True}, {"flip_zyx"}),
    "transpose": ({"transpose": True}, {"transpose"}),
    "shift": ({"shift_mm": 3.0}, {"shift_mm"}),
    "scale": ({"log_scale": 0.3}, {"scale"}),
    "rotate": ({"rotate_deg": 90.0}, {"rotate_rad"}),
    "tilt": ({"tilt_deg": 15.0}, {"rotate_rad"}),
    "thick": ({"thick_mm": 6.0}, {"thick_mm"}),
    "soften": ({"soften": 0.3}, {"soften"}),
    "sharpen": ({"sharpen": 0.2}, {"soften"}),
    "noise": ({"noise_hu": 30.0}, {"noise_hu"}),
    "grain": ({"grain_hu": 30.0}, {"grain_hu"}),
    "shift_hu": ({"shift_hu": 30.0}, {"shift_hu"}),
    "scale_hu": ({"log_scale_hu": 0.1}, {"scale_hu"}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_switch_changes_the_crops_and_only_its_own_parameters(name):
    settings, touched = CHANGES[name]
    drawn = draw(torch.Generator().manual_seed(3), 16, replace(OFF, chance=1.0, **settings))
    identity = Parameters.identity(16)
    changed = {
        f.name
        for f in fields(Parameters)
        if f.name not in ("noise_start", "thick_phase")
        and not torch.equal(getattr(drawn, f.name), getattr(identity, f.name))
    }
    assert changed == touched
    crops = smooth_crops(16) + 50 * torch.randn(16, 1, 24, 36, 36, generator=torch.Generator().manual_seed(0))
    hu, _ = apply(crops, None, drawn, spacing_zyx_mm=SPACING)
    assert (hu - crops).abs().max() > 1


def test_every_setting_has_a_test():
    tested = {key for settings, _ in CHANGES.values() for key in settings}
    assert tested | {"chance"} == {f.name for f in fields(AugmentSettings)}


def test_switching_one_change_off_leaves_the_draws_of_the_others():
    all_on = draw(torch.Generator().manual_seed(4), 8, AugmentSettings())
    one_off = draw(torch.Generator().manual_seed(4), 8, AugmentSettings(shift_mm=0, noise_hu=0))
    for f in fields(Parameters):
        if f.name not in ("shift_mm", "noise_hu"):
            assert torch.equal(getattr(all_on, f.name), getattr(one_off, f.name)), f.name


def test_same_generator_state_same_result():
    crops = smooth_crops(4)
    a, b = (draw(torch.Generator().manual_seed(9), 4, AugmentSettings()) for _ in range(2))
    assert torch.equal(
        apply(crops, None, a, spacing_zyx_mm=SPACING)[0], apply(crops, None, b, spacing_zyx_mm=SPACING)[0]
    )


def test_apply_does_not_touch_its_input():
    crops = smooth_crops(4)
    before = crops.clone()
    apply(crops, None, draw(torch.Generator().manual_seed(9), 4, AugmentSettings(chance=1)), spacing_zyx_mm=SPACING)
    assert torch.equal(crops, before)


def test_mixed_precision_leaves_the_crops_in_full_precision():
    crops = smooth_crops(4)
    p = draw(torch.Generator().manual_seed(9), 4, AugmentSettings(chance=1))
    plain, _ = apply(crops, None, p, spacing_zyx_mm=SPACING)
    with torch.autocast("cpu", torch.bfloat16):
        mixed, _ = apply(crops, None, p, spacing_zyx_mm=SPACING)
    assert torch.equal(plain, mixed)


def test_a_crop_does_not_depend_on_the_rest_of_its_batch():
    crops = smooth_crops(4)
    p = draw(torch.Generator().manual_seed(2), 4, AugmentSettings())
    together, _ = apply(crops, None, p, spacing_zyx_mm=SPACING)
    one = Parameters(**{f.name: getattr(p, f.name)[2:3] for f in fields(p)})
    alone, _ = apply(crops[2:3], None, one, spacing_zyx_mm=SPACING)
    torch.testing.assert_close(together[2:3], alone, atol=0.01, rtol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_flip_is_an_exact_mirror(axis):
    crops = torch.randn(1, 1, 6, 8, 8)
    flips = torch.zeros(1, 3, dtype=torch.bool)
    flips[0, axis] = True
    hu, labels = change(crops, (crops > 0).to(torch.uint8), flip_zyx=flips)
    assert torch.equal(hu, crops.flip(axis + 2))
    assert torch.equal(labels, (crops > 0).to(torch.uint8).flip(axis + 2))


def test_transpose_swaps_rows_and_columns_exactly():
    crops = torch.randn(1, 1, 6, 8, 8)
    hu, _ = change(crops, transpose=torch.tensor([True]))
    assert torch.equal(hu, crops.transpose(3, 4))


@pytest.mark.parametrize("flips", [(False, True, False), (False, False, True), (True, True, True)])
def test_a_flipped_and_transposed_crop_is_what_resampling_makes_of_it(flips):
    crops = 100 * torch.randn(1, 1, 6, 8, 8)
    turned = {"flip_zyx": torch.tensor([flips]), "transpose": torch.tensor([True])}
    exact, labels = change(crops, (crops > 0).to(torch.uint8), **turned)
    resampled, expected = change(crops, (crops > 0).to(torch.uint8), **turned, scale=torch.tensor([1.0000002]))
    torch.testing.assert_close(exact, resampled, atol=0.1, rtol=0)
    assert torch.equal(labels, expected)


def test_transpose_of_an_oblong_crop_keeps_its_shape_and_center():
    crops = torch.randn(1, 1, 6, 9, 7)
    hu, _ = change(crops, transpose=torch.tensor([True]))
    assert hu.shape == crops.shape
    torch.testing.assert_close(hu[0, 0, :, 4, 3], crops[0, 0, :, 4, 3])


def test_shift_moves_the_content_by_so_many_millimetres():
    hu, label = ball()
    moved, moved_label = change(hu, label, shift_mm=torch.tensor([[3.0, -2.0, 4.0]]))
    torch.testing.assert_close(center_mm(moved_label == 1), torch.tensor([3.0, -2.0, 4.0]), atol=0.05, rtol=0)
    torch.testing.assert_close(center_mm(moved > -450), torch.tensor([3.0, -2.0, 4.0]), atol=0.05, rtol=0)


def test_shift_by_half_a_voxel_is_the_mean_of_neighbours():
    crops = torch.randn(1, 1, 4, 6, 6)
    hu, _ = change(crops, shift_mm=torch.tensor([[0.0, 0.0, 0.5]]))
    torch.testing.assert_close(hu[..., 1:], (crops[..., 1:] + crops[..., :-1]) / 2, atol=1e-4, rtol=0)


def test_scale_magnifies_volume_by_its_cube():
    hu, label = ball()
    _, larger = change(hu, label, scale=torch.tensor([1.25]))
    ratio = float((larger == 1).sum() / label.sum())
    assert ratio == pytest.approx(1.25**3, rel=0.05)


def test_rotation_turns_rows_towards_columns_by_the_angle():
    hu, label = ball((0.0, 10.0, 0.0), 4.0)
    turned, turned_label = change(hu, label, rotate_rad=torch.tensor([[torch.pi / 2, 0, 0]]))
    assert torch.linalg.norm(center_mm(turned_label == 1)) == pytest.approx(10, abs=0.1)
    assert abs(float(center_mm(turned > -450)[2])) == pytest.approx(10, abs=0.1)


def test_tilt_keeps_millimetres_although_slices_are_thicker_than_pixels():
    hu, label = ball((12.0, 0.0, 0.0), 4.0)
    _, tilted = change(hu, label, rotate_rad=torch.tensor([[0, 0.4, 0.0]]))
    center = center_mm(tilted == 1)
    assert torch.linalg.norm(center) == pytest.approx(12, abs=0.25)
    assert abs(float(center[2])) == pytest.approx(12 * torch.sin(torch.tensor(0.4)).item(), abs=0.3)
    extent = torch.nonzero((tilted == 1)[0, 0]).float()
    sizes = (extent.max(0).values - extent.min(0).values) * torch.tensor(SPACING)
    assert sizes.max() - sizes.min() <= 2.0


def test_geometric_changes_agree_with_sampling_in_three_dimensions():
    settings = replace(OFF, rotate_deg=180.0, tilt_deg=15.0, shift_mm=3.0, log_scale=0.2, flip=True, transpose=True)
    crops = smooth_crops(8, (40, 60, 60))
    p = draw(torch.Generator().manual_seed(1), 8, settings)
    hu, _ = apply(crops, None, p, spacing_zyx_mm=SPACING, shape_zyx=(20, 30, 30))
    eye, spacing = torch.eye(3), torch.tensor(SPACING)
    for i in range(8):
        cos, sin = p.rotate_rad[i].cos(), p.rotate_rad[i].sin()
        about_z = torch.tensor([[1, 0, 0], [0, cos[0], -sin[0]], [0, sin[0], cos[0]]])
        about_y = torch.tensor([[cos[1], 0, -sin[1]], [0, 1, 0], [sin[1], 0, cos[1]]])
        about_x = torch.tensor([[cos[2], -sin[2], 0], [sin[2], cos[2], 0], [0, 0, 1]])
        swap = eye[[0, 2, 1]] if p.transpose[i] else eye
        mirror = torch.diag(1 - 2 * p.flip_zyx[i].float())
        millimetres = about_z @ about_y @ about_x @ mirror @ swap / p.scale[i]
        grid = torch.stack(
            torch.meshgrid(*[torch.arange(n) - (n - 1) / 2 for n in (20, 30, 30)], indexing="ij"), dim=-1
        )
        position = ((grid * spacing) @ millimetres.T - p.shift_mm[i]) / spacing
        half = (torch.tensor([40.0, 60.0, 60.0]) - 1) / 2
        expected = functional.grid_sample(
            crops[i : i + 1], (position / half).flip(-1)[None], padding_mode="border", align_corners=True
        )
        assert (hu[i] - expected[0]).abs().max() < 2.5  # of a field that spans more than 1,000 HU


def test_labels_keep_their_values_and_what_comes_from_outside_is_ignored():
    hu, label = ball()
    _, moved = change(hu, label * 7, rotate_rad=torch.tensor([[0.6, 0.1, 0.1]]))
    assert set(moved.unique().tolist()) == {0, 7, IGNORE}
    _, small = change(hu, label * 7, scale=torch.tensor([0.5]))
    assert (small[0, 0, 0] == IGNORE).all()


def test_a_smaller_result_has_no_corners_from_outside():
    crops, label = smooth_crops(1, (32, 64, 64)), torch.zeros(1, 1, 32, 64, 64, dtype=torch.uint8)
    p = Parameters.identity(1).replace(rotate_rad=torch.tensor([[0.7, 0, 0]]))
    hu, moved = apply(crops, label, p, spacing_zyx_mm=SPACING, shape_zyx=(32, 40, 40))
    assert hu.shape == (1, 1, 32, 40, 40)
    assert (moved == 0).all()


def test_result_of_another_parity_is_refused():
    with pytest.raises(UsageError, match="even number"):
        apply(smooth_crops(), None, Parameters.identity(2), spacing_zyx_mm=SPACING, shape_zyx=(23, 36, 36))


def test_thicker_slices_average_along_z_only():
    noise = torch.randn(1, 1, 40, 24, 24, generator=torch.Generator().manual_seed(0))
    thick, _ = change(noise, thick_mm=torch.tensor([6.0]), thick_phase=torch.tensor([0.3]))
    ratio = float(thick.std() / noise.std())
    assert 0.3 < ratio < 0.55  # the mean of 4 slices halves noise, interpolation takes off some more
    rows = torch.arange(24.0).view(1, 1, 1, 24, 1).expand(1, 1, 40, 24, 24).contiguous()
    same, _ = change(rows, thick_mm=torch.tensor([6.0]), thick_phase=torch.tensor([0.3]))
    torch.testing.assert_close(same, rows)


def test_slices_thinner_than_the_crops_own_change_nothing():
    crops = smooth_crops(1)
    hu, _ = change(crops, thick_mm=torch.tensor([1.4]))
    assert torch.equal(hu, crops)


def test_soft_kernel_lowers_noise_and_sharp_kernel_raises_it_and_both_keep_the_mean():
    noise = 40 * torch.randn(1, 1, 12, 48, 48, generator=torch.Generator().manual_seed(0))
    soft, _ = change(noise, soften=torch.tensor([0.3]))
    sharp, _ = change(noise, soften=torch.tensor([-0.2]))
    assert soft.std() < 0.7 * noise.std() < 1.3 * noise.std() < sharp.std()
    for hu in (soft, sharp):
        assert hu.mean() == pytest.approx(float(noise.mean()), abs=1e-3)
    impulse = torch.zeros(1, 1, 5, 9, 9)
    impulse[0, 0, 2, 4, 4] = 1.0
    blurred, _ = change(impulse, soften=torch.tensor([0.25]))
    assert blurred[0, 0, 2, 4, 3:6].tolist() == pytest.approx([0.125, 0.25, 0.125])
    assert blurred[0, 0, [1, 3]].abs().max() == 0


def test_white_noise_has_its_standard_deviation_and_no_correlation():
    flat = torch.zeros(1, 1, 32, 64, 64)
    hu, _ = change(flat, noise_hu=torch.tensor([30.0]), noise_start=torch.full((1, 2, 3), 1234))
    assert hu.std() == pytest.approx(30, rel=0.02)
    assert abs(neighbours(hu)) < 0.02


def test_grain_has_its_standard_deviation_and_is_correlated():
    flat = torch.zeros(1, 1, 32, 64, 64)
    hu, _ = change(flat, grain_hu=torch.tensor([30.0]), noise_start=torch.full((1, 2, 3), 1234))
    assert hu.std() == pytest.approx(30, rel=0.1)
    assert neighbours(hu) > 0.7


def neighbours(hu: Tensor) -> float:
    pair = torch.stack([hu[..., :-1].flatten(), hu[..., 1:].flatten()])
    return float(torch.corrcoef(pair)[0, 1])


def test_noise_of_two_crops_differs():
    start = torch.tensor([[[0, 0, 0]] * 2, [[5, 9, 2]] * 2])
    hu, _ = change(torch.zeros(2, 1, 16, 32, 32), noise_hu=torch.full((2,), 30.0), noise_start=start)
    assert abs(float(torch.corrcoef(hu.flatten(1))[0, 1])) < 0.05


def test_noise_reaches_crops_larger_than_its_field():
    hu, _ = change(torch.zeros(1, 1, 4, 200, 8), noise_hu=torch.tensor([30.0]))
    assert hu[0, 0, :, 190:].std() == pytest.approx(30, rel=0.3)


def test_calibration_scales_about_air_and_shifts():
    crops = torch.tensor([-1000.0, 0.0, 500.0]).view(1, 1, 1, 1, 3)
    hu, _ = change(crops, scale_hu=torch.tensor([1.1]), shift_hu=torch.tensor([20.0]))
    torch.testing.assert_close(hu.flatten(), torch.tensor([-980.0, 120.0, 670.0]))


def test_settings_below_zero_are_refused_by_name():
    with pytest.raises(UsageError, match=r"augment\.noise_hu is -1"):
        AugmentSettings(noise_hu=-1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_gives_the_result_of_the_cpu():
    crops = smooth_crops(8)
    labels = (crops > -400).to(torch.uint8)
    p = draw(torch.Generator().manual_seed(6), 8, AugmentSettings(chance=1.0))
    hu, moved = apply(crops, labels, p, spacing_zyx_mm=SPACING)
    hu_gpu, moved_gpu = apply(crops.cuda(), labels.cuda(), p, spacing_zyx_mm=SPACING)
    torch.testing.assert_close(hu_gpu.cpu(), hu, atol=0.1, rtol=1e-3)
    assert (moved_gpu.cpu() != moved).float().mean() < 1e-3


def test_crops_without_tilt_move_as_those_with_hardly_any() -> None:
    crops = torch.randn(3, 1, 14, 22, 22, generator=torch.Generator().manual_seed(0))
    crops = functional.avg_pool3d(crops, 5, 1, 2)
    labels = (crops > 0.05).to(torch.uint8)
    parameters = draw(torch.Generator().manual_seed(1), 3, replace(OFF, rotate_deg=180.0, shift_mm=3.0, log_scale=0.2))
    parameters = parameters.replace(flip_zyx=torch.tensor([[True, False, False], [False, True, True], [False] * 3]))
    tilted = parameters.replace(rotate_rad=parameters.rotate_rad + torch.tensor([0.0, 1e-6, 1e-6]))
    upright = apply(crops, labels, parameters, spacing_zyx_mm=(1.5, 1, 1), shape_zyx=(10, 16, 16))
    reference = apply(crops, labels, tilted, spacing_zyx_mm=(1.5, 1, 1), shape_zyx=(10, 16, 16))
    torch.testing.assert_close(upright[0], reference[0], atol=1e-4, rtol=0)
    assert (upright[1] == reference[1]).float().mean() > 0.999
