"""A 3-D network as the same network of 2-D convolutions, for runtimes without 3-D ones.

A 3 x 3 x 3 convolution is the sum of three 2-D ones, one for each neighbouring slice; slices take the place of the
batch, so one crop goes through at a time. A pool by the maximum likewise: within slices, then over pairs of them. The
answer is the same but for rounding. Must not know files or runtimes.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, pad

from carina.geometry import Shape3
from carina.models.nodule import NoduleNet


class Scale(nn.Module):
    """Batch normalisation in evaluation mode, written as one factor and one summand for each channel."""

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: nn.BatchNorm2d | nn.BatchNorm3d) -> None:
        super().__init__()
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean, variance = norm.running_mean.double(), norm.running_var.double()
        scale = norm.weight.detach().double() / torch.sqrt(variance + norm.eps)
        shift = norm.bias.detach().double() - mean * scale
        self.register_buffer("scale", scale.to(norm.weight.dtype)[:, None, None])
        self.register_buffer("shift", shift.to(norm.weight.dtype)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """[b c h w] to the same shape."""
        return x * self.scale + self.shift


class SliceConv(nn.Module):
    """A 3 x 3 x 3 convolution with padding 1 on slices [z c y x]."""

    def __init__(self, conv: nn.Conv3d) -> None:
        super().__init__()
        assert (conv.kernel_size, conv.padding, conv.stride) == ((3, 3, 3), (1, 1, 1), (1, 1, 1))
        below, middle, above = (
            nn.Conv2d(conv.in_channels, conv.out_channels, 3, padding=1, bias=k == 1, dtype=conv.weight.dtype)
            for k in range(3)
        )
        for k, part in enumerate((below, middle, above)):
            part.weight.data = conv.weight.detach()[:, :, k].contiguous()
        assert middle.bias is not None
        assert conv.bias is not None
        middle.bias.data = conv.bias.detach().clone()
        self.below, self.middle, self.above = below, middle, above

    def forward(self, x: Tensor) -> Tensor:
        """[z c y x] to [z c' y x]; slices beyond the ends are zero."""
        depth = x.shape[0]
        padded = pad(x, (0, 0, 0, 0, 0, 0, 1, 1))
        total: Tensor = self.below(padded[:depth]) + self.middle(x) + self.above(padded[2:])
        return total


class SlicePool(nn.Module):
    """The maximum over 2 x 2 x 2 voxels on slices [z c y x]."""

    def forward(self, x: Tensor) -> Tensor:
        """[z c y x] to [z/2 c y/2 x/2]."""
        pooled = max_pool2d(x, 2)
        depth, channels, height, width = pooled.shape
        # Pairs of slices become pairs of rows, because some runtimes know no step of 2 along the batch.
        rows = pooled.reshape(1, 1, depth, channels * height * width)
        return max_pool2d(rows, (2, 1)).reshape(depth // 2, channels, height, width)


class FoldedNodule(nn.Module):
    """``NoduleNet`` in 2-D, for one crop at a time: [1 1 z y x] to logits [1 2]."""

    def __init__(self, network: NoduleNet, crop_zyx: Shape3) -> None:
        super().__init__()
        self.crop_zyx = crop_zyx
        self.input_norm = Scale(network.input_norm)
        self.blocks = nn.Sequential(
            *(_folded(layer) for block in network.blocks.children() for layer in block.children())
        )
        self.head = copy.deepcopy(network.head)

    def forward(self, crops: Tensor) -> Tensor:
        """[1 1 z y x], scaled to [-1, 1], to logits [1 2]."""
        z, y, x = self.crop_zyx
        features: Tensor = self.blocks(self.input_norm(crops.reshape(z, 1, y, x)))
        logits: Tensor = self.head(features.transpose(0, 1).reshape(1, -1))
        return logits


def scales_for_norms(network: nn.Module) -> nn.Module:
    """A copy in which every 2-D batch normalisation is a ``Scale``."""
    if isinstance(network, nn.BatchNorm2d):
        return Scale(network)
    copied = copy.deepcopy(network)
    for name, child in copied.named_children():
        setattr(copied, name, scales_for_norms(child))
    return copied


def _folded(layer: nn.Module) -> nn.Module:
    match layer:
        case nn.Conv3d():
            return SliceConv(layer)
        case nn.MaxPool3d():
            return SlicePool()
        case _:
            return copy.deepcopy(layer)
