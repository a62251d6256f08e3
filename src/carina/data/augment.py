"""Augmentation of a batch of crops, on whatever device the batch lives on.

Drawing is apart from applying: ``draw`` turns a random generator into ``Parameters``, ``apply`` is a pure function of
crops and parameters and gives the same result on CPU and CUDA within rounding. All geometric changes of one crop
(flips, transpose, shift, scale, rotation) are one affine map in millimetres and one resampling; crops that are only
mirrored or transposed are not resampled at all. What a scanner does follows in the order of physics: thicker slices,
the reconstruction kernel, noise, calibration.

Must not know scans, networks or losses.
"""

from dataclasses import dataclass, fields, replace
from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from carina.data.affine import AffineMap
from carina.errors import UsageError
from carina.geometry import Shape3, Vector3
from carina.hu import AIR

FIELD_SHAPE = (96, 160, 160)
"""Shape of the fields that noise is read from; larger for larger crops."""

CORRELATION_VOXELS = (0.6, 1.2, 1.2)
"""Sigma of the blur that makes white noise grainy."""


@dataclass(frozen=True)
class AugmentSettings:
    """How strongly crops are changed; zero or ``False`` switches a change off.

    Attributes:
        flip: mirror along each axis, each with probability 1/2.
        transpose: swap rows and columns with probability 1/2.
        shift_mm: shift along each axis, uniform in [-shift_mm, shift_mm].
        log_scale: magnification exp(u), u uniform in [-log_scale, log_scale].
        rotate_deg: rotation about the z axis, uniform in [-rotate_deg, rotate_deg].
        tilt_deg: rotation about the y and the x axis, uniform in [-tilt_deg, tilt_deg].
        thick_mm: slices up to this thick, uniform from 0 (below the crop's spacing nothing happens).
        soften: strength of a softer kernel; 1/3 at most, where the in-plane blur has a sigma of 0.8 voxels.
        sharpen: strength of an edge-enhancing kernel.
        noise_hu: standard deviation of white noise, uniform from 0.
        grain_hu: standard deviation of spatially correlated noise, uniform from 0.
        shift_hu: offset of the calibration, uniform in [-shift_hu, shift_hu].
        log_scale_hu: slope of the calibration about air, exp(u), u uniform in [-log_scale_hu, log_scale_hu].
        chance: probability with which each of ``thick_mm``, kernel and the two noises acts on a crop.
    """

    flip: bool = True
    transpose: bool = True
    shift_mm: float = 2.0
    log_scale: float = 0.2
    rotate_deg: float = 180.0
    tilt_deg: float = 10.0
    thick_mm: float = 5.0
    soften: float = 0.3
    sharpen: float = 0.2
    noise_hu: float = 30.0
    grain_hu: float = 40.0
    shift_hu: float = 20.0
    log_scale_hu: float = 0.05
    chance: float = 0.5

    @classmethod
    def off(cls) -> "AugmentSettings":
        """Settings under which every crop stays as it is."""
        return cls(False, False, *[0.0] * (len(fields(cls)) - 2))

    def __post_init__(self) -> None:
        for f in fields(self):
            if not 0 <= getattr(self, f.name) < float("inf"):
                raise UsageError(f"augment.{f.name} is {getattr(self, f.name)}, expected a number of at least 0")
        if self.soften > 1 / 3:
            raise UsageError(f"augment.soften is {self.soften}, expected 1/3 at most")


@dataclass(frozen=True, eq=False)
class Parameters:
    """One draw for each crop of a batch; see ``AugmentSettings`` for the meaning and ``draw`` for the ranges."""

    flip_zyx: Bool[Tensor, "b 3"]
    transpose: Bool[Tensor, " b"]
    shift_mm: Float[Tensor, "b 3"]
    scale: Float[Tensor, " b"]
    rotate_rad: Float[Tensor, "b 3"]
    thick_mm: Float[Tensor, " b"]
    thick_phase: Float[Tensor, " b"]
    soften: Float[Tensor, " b"]
    noise_hu: Float[Tensor, " b"]
    grain_hu: Float[Tensor, " b"]
    noise_start: Int64[Tensor, "b 2 3"]
    shift_hu: Float[Tensor, " b"]
    scale_hu: Float[Tensor, " b"]

    @classmethod
    def identity(cls, batch: int) -> "Parameters":
        """Parameters that change nothing."""
        zero, one, zeros = torch.zeros(batch), torch.ones(batch), torch.zeros(batch, 3)
        return cls(
            flip_zyx=torch.zeros(batch, 3, dtype=torch.bool),
            transpose=torch.zeros(batch, dtype=torch.bool),
            shift_mm=zeros,
            scale=one,
            rotate_rad=zeros,
            thick_mm=zero,
            thick_phase=zero,
            soften=zero,
            noise_hu=zero,
            grain_hu=zero,
            noise_start=torch.zeros(batch, 2, 3, dtype=torch.int64),
            shift_hu=zero,
            scale_hu=one,
        )

    def to(self, device: torch.device | str) -> "Parameters":
        """The same draw on another device."""
        return Parameters(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def replace(self, **changes: Tensor) -> "Parameters":
        """A copy with some tensors exchanged."""
        return replace(self, **changes)


def draw(generator: torch.Generator, batch: int, settings: AugmentSettings) -> Parameters:
    """Draw parameters for a batch.

    The same numbers are consumed whatever the settings are: switching one change off leaves the others alone.

    Args:
        generator: a CPU generator; its state alone decides the result.
        batch: number of crops.
        settings: the ranges.
    """
    uniform = torch.rand(batch, 24, generator=generator)
    start = torch.randint(0, 2**31 - 1, (batch, 2, 3), generator=generator)
    signed = 2 * uniform - 1
    acts = uniform[:, 20:24] < settings.chance
    soften = torch.where(signed[:, 14] > 0, settings.soften, settings.sharpen) * signed[:, 14]
    degrees = torch.tensor([settings.rotate_deg, settings.tilt_deg, settings.tilt_deg])
    return Parameters(
        flip_zyx=(uniform[:, 0:3] < 0.5) & settings.flip,
        transpose=(uniform[:, 3] < 0.5) & settings.transpose,
        shift_mm=signed[:, 4:7] * settings.shift_mm,
        scale=torch.exp(signed[:, 7] * settings.log_scale),
        rotate_rad=torch.deg2rad(signed[:, 8:11] * degrees),
        thick_mm=uniform[:, 12] * settings.thick_mm * acts[:, 0],
        thick_phase=uniform[:, 13],
        soften=soften * acts[:, 1],
        noise_hu=uniform[:, 15] * settings.noise_hu * acts[:, 2],
        grain_hu=uniform[:, 16] * settings.grain_hu * acts[:, 3],
        noise_start=start,
        shift_hu=signed[:, 17] * settings.shift_hu,
        scale_hu=torch.exp(signed[:, 18] * settings.log_scale_hu),
    )


def apply(
    crops: Float[Tensor, "b 1 z y x"],
    labels: Shaped[Tensor, "b c z y x"] | None,
    parameters: Parameters,
    *,
    spacing_zyx_mm: Vector3,
    shape_zyx: Shape3 | None = None,
) -> tuple[Float[Tensor, "b 1 z2 y2 x2"], Shaped[Tensor, "b c z2 y2 x2"] | None]:
    """Change a batch of crops as the parameters say.

    Args:
        crops: HU.
        labels: maps that move along with the geometric changes (labels, weights), sampled at the nearest voxel;
            what comes from outside the input is ``IGNORE``. HU from outside repeat the border.
        parameters: one draw per crop, on any device.
        spacing_zyx_mm: spacing of the crops' grid.
        shape_zyx: shape of the result, about the same centre; smaller than the input, so that turned corners are
            filled with what is there. It must differ from the input's shape by an even number of voxels along each
            axis. Default: the input's shape.

    Returns:
        HU and maps, in the types of ``crops`` and ``labels``.
    """
    shape = shape_zyx or (crops.shape[2], crops.shape[3], crops.shape[4])
    if any((n - m) % 2 for n, m in zip(crops.shape[2:], shape, strict=True)):
        raise UsageError(
            f"crops of shape {tuple(crops.shape[2:])} cannot be cut to {shape} about the same centre: "
            "each axis must differ by an even number of voxels"
        )
    # Decisions are taken on the processor: a graphics card would be waited for at each of them.
    p = parameters.to("cpu")
    # HU have more digits than the types of mixed precision hold.
    with torch.autocast(crops.device.type, enabled=False):
        crops, labels = _move(crops, labels, p, spacing_zyx_mm, shape)
        # From here on the crops are a copy, which is changed in place.
        crops = _thicken(crops, p, spacing_zyx_mm[0])
        crops = _change_kernel(crops, p.soften)
        crops = _add_noise(crops, p)
        scale, shift = p.scale_hu.to(crops), (p.shift_hu + AIR * (1 - p.scale_hu)).to(crops)
        return torch.addcmul(shift.view(-1, 1, 1, 1, 1), crops, scale.view(-1, 1, 1, 1, 1)), labels


def _matrices(p: Parameters, spacing_zyx_mm: Vector3) -> Float[Tensor, "b 3 3"]:
    """For each crop the matrix from index offsets of the result to index offsets of the input, both (z, y, x)."""
    zero, one = torch.zeros_like(p.scale), torch.ones_like(p.scale)
    cos, sin = torch.cos(p.rotate_rad).unbind(1), torch.sin(p.rotate_rad).unbind(1)
    about_z = [one, zero, zero, zero, cos[0], -sin[0], zero, sin[0], cos[0]]
    about_y = [cos[1], zero, -sin[1], zero, one, zero, sin[1], zero, cos[1]]
    about_x = [cos[2], -sin[2], zero, sin[2], cos[2], zero, zero, zero, one]
    rotation = torch.eye(3)
    for axis in (about_z, about_y, about_x):
        rotation = rotation @ torch.stack(axis, dim=1).view(-1, 3, 3)
    swapped = torch.eye(3)[[0, 2, 1]]
    mirror = torch.diag_embed(1.0 - 2.0 * p.flip_zyx.float())
    mirror = mirror @ torch.where(p.transpose.view(-1, 1, 1), swapped, torch.eye(3))
    spacing = torch.tensor(spacing_zyx_mm)
    return (rotation @ mirror / p.scale.view(-1, 1, 1)) * spacing / spacing.view(3, 1)


def _move(
    crops: Tensor, labels: Tensor | None, p: Parameters, spacing_zyx_mm: Vector3, shape: Shape3
) -> tuple[Tensor, Tensor | None]:
    """All geometric changes: exact where voxels fall onto voxels, else one trilinear resampling."""
    resampled = (p.shift_mm != 0).any(1) | (p.scale != 1) | (p.rotate_rad != 0).any(1)
    square = crops.shape[3] == crops.shape[4] and spacing_zyx_mm[1] == spacing_zyx_mm[2]
    if not square:
        resampled = resampled | p.transpose
    moved = crops.new_empty((*crops.shape[:2], *shape))
    moved_labels = None if labels is None else labels.new_empty((*labels.shape[:2], *shape))
    cut = tuple(slice((n - m) // 2, (n - m) // 2 + m) for n, m in zip(crops.shape[2:], shape, strict=True))
    for i in torch.nonzero(~resampled).flatten().tolist():
        axes = [axis + 1 for axis in range(3) if p.flip_zyx[i, axis]]
        for source, target in ((crops, moved), (labels, moved_labels)):
            if source is None or target is None:
                continue
            # The order of _matrices: along which axes a crop is mirrored does not depend on the transposition.
            one = source[i].flip(axes) if axes else source[i]
            one = one.transpose(2, 3) if p.transpose[i] else one
            target[i] = one[(slice(None), *cut)]
    chosen = torch.nonzero(resampled).flatten()
    matrices, shifts = _matrices(p, spacing_zyx_mm), -p.shift_mm / torch.tensor(spacing_zyx_mm)
    matrices, shifts = matrices.to(crops), shifts.to(crops)
    tilted = p.rotate_rad[chosen, 1:].any(1)
    # One tilted crop at a time stays in a processor's cache; a graphics card wants them all.
    together = 1 if crops.device.type == "cpu" else len(crops)
    parts = [(chosen[~tilted], True), *((part, False) for part in chosen[tilted].split(together))]
    for part, upright in parts:
        if len(part):
            affine = AffineMap(matrices[part], shifts[part], crops.shape[2:], shape, upright=upright)
            moved[part] = affine.trilinear(crops[part] if len(part) < len(crops) else crops)
            if labels is not None and moved_labels is not None:
                moved_labels[part] = affine.nearest(labels[part])
    return moved, moved_labels


def _thicken(crops: Tensor, p: Parameters, spacing_mm: float) -> Tensor:
    """Average into slices of ``thick_mm`` and interpolate back: one matrix along z for each crop."""
    chosen = torch.nonzero(p.thick_mm > spacing_mm).flatten()
    n = crops.shape[2]
    if not len(chosen):
        return crops
    thick = (p.thick_mm[chosen] / spacing_mm).view(-1, 1, 1)
    phase = p.thick_phase[chosen].view(-1, 1, 1)
    voxel = torch.arange(n)
    # n + 1 slices at the pitch of the thickness reach beyond the last voxel whatever the phase.
    lower = (torch.arange(n + 1).view(1, -1, 1) - phase) * thick - 0.5
    overlap = torch.minimum(lower + thick, voxel + 0.5) - torch.maximum(lower, voxel - 0.5)
    overlap = overlap.clamp_min(0)
    covered = overlap.sum(2, keepdim=True)
    average = overlap / covered.clamp_min(1e-6)
    distance = (voxel.view(1, 1, -1) - (lower + thick / 2)).abs() / thick
    # Slices that cover no voxel take no part; the ends of the crop repeat the last slice that does.
    weight = (1 - distance).clamp_min(0) * (covered > 1e-6)
    weight = weight / weight.sum(1, keepdim=True)
    matrix = (weight.transpose(1, 2) @ average).to(crops)
    flat = crops[chosen].flatten(3).squeeze(1)
    crops[chosen] = (matrix @ flat).view(len(chosen), 1, *crops.shape[2:])
    return crops


def _change_kernel(crops: Tensor, soften: Tensor) -> Tensor:
    """Three taps (w, 1 - 2w, w) along rows and columns: w > 0 blurs, w < 0 sharpens, the mean stays."""
    chosen = torch.nonzero(soften != 0).flatten()
    if not len(chosen):
        return crops
    w = soften[chosen].to(crops).view(-1, 1, 1, 1)
    part = crops[chosen].squeeze(1)
    for axis in (2, 3):
        n = part.shape[axis]
        step = part.diff(dim=axis)
        changed = part.clone()
        changed.narrow(axis, 0, n - 1).addcmul_(w, step)
        changed.narrow(axis, 1, n - 1).addcmul_(w, step, value=-1)
        part = changed
    crops[chosen] = part.unsqueeze(1)
    return crops


def _add_noise(crops: Tensor, p: Parameters) -> Tensor:
    """Noise from two fixed fields of unit variance, read at a place of its own for each crop."""
    fields_shape = tuple(max(n, m + 16) for n, m in zip(FIELD_SHAPE, crops.shape[2:], strict=True))
    for k, sigma in enumerate((p.noise_hu, p.grain_hu)):
        for i in torch.nonzero(sigma > 0).flatten().tolist():
            noise = _noise_fields(str(crops.device), fields_shape)[k]
            for axis, n in enumerate(crops.shape[2:]):
                start = int(p.noise_start[i, k, axis]) % (fields_shape[axis] - n + 1)
                noise = noise.narrow(axis, start, n)
            crops[i, 0].add_(noise.to(crops.dtype), alpha=float(sigma[i]))
    return crops


@lru_cache(maxsize=4)
def _noise_fields(device: str, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """White and correlated noise of unit variance, the same on every device."""
    white = torch.randn(shape, generator=torch.Generator().manual_seed(20240217))
    frequency = torch.fft.rfftn(white)
    for axis, (n, sigma) in enumerate(zip(shape, CORRELATION_VOXELS, strict=True)):
        f = torch.fft.rfftfreq(n) if axis == 2 else torch.fft.fftfreq(n)
        gain = torch.exp(-2 * (torch.pi * sigma * f) ** 2)
        frequency = frequency * gain.view([-1 if k == axis else 1 for k in range(3)])
    grain = torch.fft.irfftn(frequency, s=shape)
    return (white / white.std()).to(device), (grain / grain.std()).to(device)
