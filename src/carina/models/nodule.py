"""The 3-D network that says whether a candidate is a nodule; fine-tuned, whether a nodule is malignant.

Must not know files, HU or training. ``forward`` takes and returns plain tensors, so that the network can be scripted,
exported and converted.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from carina.geometry import Shape3
from carina.models.initialise import kaiming_fan_out

CROP_ZYX: Shape3 = (32, 48, 48)
"""Voxels of the crop that the network sees, centred on the candidate."""


class NoduleBlock(nn.Sequential):
    """Two 3 x 3 x 3 convolutions with ReLU, then halving by the maximum."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv3d(in_channels, out_channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv3d(out_channels, out_channels, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool3d(2),
        )


class NoduleNet(nn.Module):
    """Four blocks and a linear layer on crops of ``CROP_ZYX``; with its defaults it has 222,220 parameters.

    Args:
        first_filters: channels of the first block, doubled with each block.
        crop_zyx: voxels of the input; each a multiple of 16.
    """

    def __init__(self, first_filters: int = 8, crop_zyx: Shape3 = CROP_ZYX) -> None:
        super().__init__()
        widths = [first_filters * 2**level for level in range(4)]
        self.input_norm = nn.BatchNorm3d(1)
        self.blocks = nn.Sequential(
            *(NoduleBlock(before, after) for before, after in zip([1, *widths], widths, strict=False))
        )
        left = (crop_zyx[0] // 16) * (crop_zyx[1] // 16) * (crop_zyx[2] // 16)
        self.head = nn.Linear(widths[-1] * left, 2)
        kaiming_fan_out(self)

    def forward(self, crops: Tensor) -> Tensor:
        """Classify crops.

        Args:
            crops: [b 1 z y x] scaled to [-1, 1], the candidate in the middle.

        Returns:
            Logits [b 2]; the softmax's second column is the probability of the positive class.
        """
        if self.training and self.input_norm.weight.requires_grad:
            features = self._features_while_learning(crops)
        else:
            features = self.blocks(self.input_norm(crops))
        logits: Tensor = self.head(features.flatten(1))
        return logits

    @torch.jit.unused
    def _features_while_learning(self, crops: Tensor) -> Tensor:
        """The same features without the gradient by the first convolution's input, a quarter of a step on processors.

        Only scale and shift of the normalisation ask for that gradient. Here both are part of the convolution: the
        scale of its weights, and the shift as weights of a second channel of ones, which ends at the border as the
        padded input does.
        """
        norm, first = self.input_norm, self.blocks.get_submodule("0.0")
        assert isinstance(first, nn.Conv3d)
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.add_(1)
        momentum = 0.1 if norm.momentum is None else norm.momentum
        plain = functional.batch_norm(
            crops, norm.running_mean, norm.running_var, training=True, momentum=momentum, eps=norm.eps
        )
        inputs = torch.cat([plain, torch.ones_like(plain)], dim=1)
        weight = torch.cat([first.weight * norm.weight, first.weight * norm.bias], dim=1)
        features = functional.conv3d(inputs, weight, first.bias, padding=1)
        for layer in [*self.blocks.get_submodule("0").children()][1:]:
            features = layer(features)
        return self.blocks[1:](features)  # type: ignore[no-any-return]
