"""The 3-D U-Net that marks nodules in a whole block of voxels at once.

After Çiçek et al., "3D U-Net: Learning Dense Volumetric Segmentation from Sparse Annotation", MICCAI 2016
(arXiv:1606.06650), with padding and batch normalisation. Must not know files, HU or training. ``forward`` takes and
returns plain tensors, so that the network can be scripted, exported and converted.
"""

import torch
from torch import Tensor, nn

from carina.geometry import Shape3
from carina.models.initialise import kaiming_fan_out

TILE_ZYX: Shape3 = (64, 128, 128)
"""Voxels that the finished network looks at in one piece; a fixed size lets every runtime prepare once."""

TILE_MARGIN = 16
"""Voxels at a tile's border that are looked at and not answered for, as their surroundings are missing."""


class ConvBlock3d(nn.Sequential):
    """Two 3 x 3 x 3 convolutions, each followed by ReLU and batch normalisation."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv3d(in_channels, out_channels, 3, padding=1),
            nn.ReLU(),
            nn.BatchNorm3d(out_channels),
            nn.Conv3d(out_channels, out_channels, 3, padding=1),
            nn.ReLU(),
            nn.BatchNorm3d(out_channels),
        )


class UpBlock3d(nn.Module):
    """Doubles the resolution, joins the features of the way down, and convolves."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose3d(in_channels, out_channels, 2, stride=2)
        self.block = ConvBlock3d(2 * out_channels, out_channels)

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        """``deep`` [b c z y x] and ``skip`` [b c/2 2z 2y 2x] to [b c/2 2z 2y 2x]."""
        joined: Tensor = self.block(torch.cat([self.up(deep), skip], dim=1))
        return joined


class UNet3d(nn.Module):
    """U-Net in three dimensions with normalised input; with its defaults it has 1,401,971 parameters.

    Args:
        depth: number of resolutions; the input's sides must be multiples of ``2 ** (depth - 1)``.
        first_filters: channels at full resolution, doubled with each step down.
    """

    def __init__(self, depth: int = 4, first_filters: int = 16) -> None:
        super().__init__()
        widths = [first_filters * 2**level for level in range(depth)]
        self.input_norm = nn.BatchNorm3d(1)
        self.down = nn.ModuleList(
            ConvBlock3d(before, after) for before, after in zip([1, *widths], widths, strict=False)
        )
        self.up = nn.ModuleList(UpBlock3d(2 * width, width) for width in reversed(widths[:-1]))
        self.pool = nn.AvgPool3d(2)
        self.head = nn.Conv3d(first_filters, 1, 1)
        kaiming_fan_out(self)
        # Nodules are rare: a head that begins by saying so saves the first minutes of training.
        nn.init.normal_(self.head.weight, std=0.05)
        if self.head.bias is not None:
            nn.init.constant_(self.head.bias, -4.0)

    def forward(self, crops: Tensor) -> Tensor:
        """Mark the nodules.

        Args:
            crops: [b 1 z y x] scaled to [-1, 1].

        Returns:
            Logits [b 1 z y x]; their sigmoid is the probability of nodule.
        """
        x = self.input_norm(crops)
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            if level > 0:
                x = self.pool(x)
            x = block(x)
            skips.append(x)
        skips.pop()
        for up in self.up:
            x = up(x, skips.pop())
        logits: Tensor = self.head(x)
        return logits
