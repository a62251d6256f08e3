"""One affine resampling of a batch of crops and of the label maps that belong to them.

Must not know what the map is for; ``data.augment`` makes it.
"""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional

from carina.geometry import Shape3
from carina.io.luna import IGNORE


class AffineMap:
    """An affine map as two passes that interpolate every axis once, as trilinear interpolation does.

    First each slice of the input is moved in its plane, by a shift that depends on the slice; then every column is
    interpolated along z. On a CPU both passes are several times faster than sampling in three dimensions. Where no
    crop is tilted, all columns of a crop move alike: then z comes first, as a product with a small matrix.
    """

    def __init__(
        self,
        matrix: Float[Tensor, "b 3 3"],
        shift: Float[Tensor, "b 3"],
        source: torch.Size,
        target: Shape3,
        *,
        upright: bool,
    ) -> None:
        """Prepare the map ``input offset = matrix @ result offset + shift`` (voxels, from the centres).

        ``upright`` promises that no matrix mixes z with another axis.
        """
        b, device = len(matrix), matrix.device
        offsets = [torch.arange(n, device=device) - (n - 1) / 2 for n in target]
        z_source = torch.arange(source[0], device=device) - (source[0] - 1) / 2
        # Solve the map's z row for the result's z, so that the in-plane position follows from the input's slice.
        slope = matrix[:, 1:, 0] / matrix[:, :1, 0]
        plane = matrix[:, 1:, 1:] - slope.unsqueeze(2) * matrix[:, :1, 1:]
        start = shift[:, None, 1:] + slope.unsqueeze(1) * (z_source.view(1, -1, 1) - shift[:, None, :1])
        # grid_sample counts (x, y), each from -1 at the first to 1 at the last voxel.
        half = torch.tensor([max(n - 1, 1) / 2 for n in source[1:]], device=device)
        plane, start = (plane / half.view(2, 1)).flip(1), (start / half).flip(2)
        rows = plane[:, :, 0].unsqueeze(1) * offsets[1].view(1, -1, 1)
        columns = plane[:, :, 1].unsqueeze(1) * offsets[2].view(1, -1, 1)
        in_plane = rows.unsqueeze(2) + columns.unsqueeze(1)
        depth = matrix[:, :1, 0] * offsets[0] + shift[:, :1] + (source[0] - 1) / 2
        self._last = source[0] - 1
        self._upright = upright
        if upright:
            self._grid, self._z = in_plane + start[:, :1, None], depth
            return
        self._grid = in_plane.unsqueeze(1) + start[:, :, None, None]
        tilt = matrix[:, 0, 1].view(-1, 1, 1) * offsets[1].view(1, -1, 1)
        tilt = tilt + matrix[:, 0, 2].view(-1, 1, 1) * offsets[2].view(1, 1, -1)
        self._z = depth.view(b, -1, 1, 1) + tilt.unsqueeze(1)

    def trilinear(self, crops: Float[Tensor, "b 1 z y x"]) -> Float[Tensor, "b 1 z2 y2 x2"]:
        """Interpolate; positions outside the crop repeat its border."""
        z = self._z.clamp(0, self._last)
        if self._upright:
            distance = z.unsqueeze(2) - torch.arange(self._last + 1, device=z.device)
            weights = (1 - distance.abs()).clamp_min_(0)
            moved = crops.new_empty((len(crops), z.shape[1], *self._grid.shape[1:3]))
            # One crop at a time stays in a processor's cache; a graphics card wants them all.
            together = 1 if crops.device.type == "cpu" else len(crops)
            for start in range(0, len(crops), together):
                part = slice(start, start + together)
                slices = (weights[part] @ crops[part, 0].flatten(2)).unflatten(2, crops.shape[3:])
                moved[part] = _sample(slices, self._grid[part], "bilinear", "border")
            return moved.unsqueeze(1)
        slices = self._each_slice(crops[:, 0], "bilinear", "border")
        low = z.floor().clamp_max(max(self._last - 1, 0))
        index = low.long()
        first, second = slices.gather(1, index), slices.gather(1, (index + 1).clamp_max_(self._last))
        return torch.lerp(first, second, z - low).unsqueeze(1)

    def nearest(self, labels: Shaped[Tensor, "b c z y x"]) -> Shaped[Tensor, "b c z2 y2 x2"]:
        """The nearest voxel along each axis; positions outside the crop are ``IGNORE``."""
        index = self._z.round()
        outside = (index < 0) | (index > self._last)
        index = index.clamp(0, self._last).long()
        channels = []
        for channel in labels.unbind(1):
            values = channel.to(self._grid.dtype) - IGNORE
            if self._upright:
                values = values[torch.arange(len(values), device=values.device)[:, None], index]
                moved = _sample(values, self._grid, "nearest", "zeros")
            else:
                moved = self._each_slice(values, "nearest", "zeros").gather(1, index)
            moved = (moved + IGNORE).to(labels.dtype)
            channels.append(moved.masked_fill_(outside[:, :, None, None] if self._upright else outside, IGNORE))
        return torch.stack(channels, dim=1)

    def _each_slice(self, slices: Float[Tensor, "b z y x"], mode: str, padding: str) -> Float[Tensor, "b z y2 x2"]:
        """Every slice moved by a shift of its own."""
        moved = _sample(slices.flatten(0, 1).unsqueeze(1), self._grid.flatten(0, 1), mode, padding)
        return moved.view(*slices.shape[:2], *moved.shape[2:])


def _sample(
    images: Float[Tensor, "n c y x"], grid: Float[Tensor, "n y2 x2 2"], mode: str, padding: str
) -> Float[Tensor, "n c y2 x2"]:
    return functional.grid_sample(images, grid, mode=mode, padding_mode=padding, align_corners=True)
