"""The 2.5-D U-Net that marks nodules slice by slice: seven neighbouring slices in, the mask of the middle one out.

After Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015
(arXiv:1505.04597), with padding and batch normalisation. Must not know files, HU or training. ``forward`` takes and
returns plain tensors, so that the network can be scripted, exported and converted.
"""

import torch
from torch import Tensor, nn

from carina.models.initialise import kaiming_fan_out


class ConvBlock(nn.Sequential):
    """Two 3 x 3 convolutions, each followed by ReLU and batch normalisation."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, padding=1),
            nn.ReLU(),
            nn.BatchNorm2d(out_channels),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
            nn.ReLU(),
            nn.BatchNorm2d(out_channels),
        )


class UpBlock(nn.Module):
    """Doubles the resolution, joins the features of the way down, and convolves."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
        self.block = ConvBlock(2 * out_channels, out_channels)

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        """``deep`` [b c h w] and ``skip`` [b c/2 2h 2w] to [b c/2 2h 2w]."""
        joined: Tensor = self.block(torch.cat([self.up(deep), skip], dim=1))
        return joined


class UNet(nn.Module):
    """U-Net with normalised input; with its defaults it has 118,271 parameters.

    Args:
        in_channels: number of neighbouring slices.
        depth: number of resolutions; height and width of the input must be multiples of ``2 ** (depth - 1)``.
        first_filters: channels at full resolution, doubled with each step down.
    """

    def __init__(self, in_channels: int = 7, depth: int = 3, first_filters: int = 16) -> None:
        super().__init__()
        widths = [first_filters * 2**level for level in range(depth)]
        self.input_norm = nn.BatchNorm2d(in_channels)
        self.down = nn.ModuleList(
            ConvBlock(before, after) for before, after in zip([in_channels, *widths], widths, strict=False)
        )
        self.up = nn.ModuleList(UpBlock(2 * width, width) for width in reversed(widths[:-1]))
        self.pool = nn.AvgPool2d(2)
        self.head = nn.Conv2d(first_filters, 1, 1)
        kaiming_fan_out(self)
        # Nodules are rare: a head that begins by saying so saves the first minutes of training.
        nn.init.normal_(self.head.weight, std=0.05)
        if self.head.bias is not None:
            nn.init.constant_(self.head.bias, -4.0)

    def forward(self, slices: Tensor) -> Tensor:
        """Mark the nodules of the middle slice.

        Args:
            slices: [b in_channels h w], neighbouring slices scaled to [-1, 1].

        Returns:
            Logits [b 1 h w]; their sigmoid is the probability of nodule.
        """
        x = self.input_norm(slices)
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
