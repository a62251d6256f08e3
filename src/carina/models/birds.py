"""Networks for small colour pictures: one hidden layer, and convolutions with one idea added at a time.

Pictures go in as they are stored, with values from 0 to 255; the first part of each network standardises them with
the channel statistics of its training data, which travel with the weights. Must not know files or training.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

VARIANTS: dict[str, dict[str, Any]] = {
    "mlp": {},
    "cnn": {},
    "wide": {"filters": 32},
    "deep": {"blocks": 4},
    "residual": {"blocks": 4, "residual": True},
    "dropout": {"dropout": 0.4},
    "batchnorm": {"batch_norm": True},
    "l2": {},
    "combined": {"filters": 24, "growth": 2.0, "blocks": 2, "residual": True, "batch_norm": True, "pooled": True},
}
"""What each network changes of the plain one (``cnn``). "l2" changes the loss only; "mlp" has no convolutions."""


class Standardise(nn.Module):
    """From values of 0 to 255 to channels of mean 0 and deviation 1 (over the training data)."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Sequence[float], deviation: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(mean)[:, None, None])
        self.register_buffer("deviation", 255 * torch.tensor(deviation)[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        """``images`` [b 3 h w] of any type to float32."""
        return (images.float() - self.mean) / self.deviation


class Block(nn.Module):
    """A convolution that keeps the size, with its normalisation and activation; residual: added to its input."""

    def __init__(self, channels: int, *, residual: bool, batch_norm: bool) -> None:
        super().__init__()
        self.residual = residual
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=not batch_norm)
        self.norm = nn.BatchNorm2d(channels) if batch_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[b c h w] to the same shape."""
        out = torch.relu(self.norm(self.conv(x)))
        return x + out if self.residual else out


class PictureNet(nn.Module):
    """Two convolutions with max-pools, then two linear layers; 18,090 parameters with its defaults.

    Args:
        filters: channels of the first convolution.
        growth: channels of the second, as a multiple of those of the first.
        blocks: further convolutions of that width after the second pool.
        residual: each of those is added to its input.
        dropout: share of channels that is left out while training, after each pool.
        batch_norm: normalise after each convolution.
        pooled: a third max-pool before the linear layers.
        classes: answers.
    """

    def __init__(
        self,
        filters: int = 16,
        growth: float = 0.5,
        blocks: int = 0,
        *,
        residual: bool = False,
        dropout: float = 0.0,
        batch_norm: bool = False,
        pooled: bool = False,
        classes: int = 2,
    ) -> None:
        super().__init__()
        narrow = round(filters * growth)
        side = 4 if pooled else 8

        def step(before: int, after: int) -> nn.Sequential:
            parts: list[nn.Module] = [nn.Conv2d(before, after, 3, padding=1, bias=not batch_norm)]
            if batch_norm:
                parts.append(nn.BatchNorm2d(after))
            # Pooling first is the same, as tanh rises everywhere, and leaves a quarter of the values to transform.
            parts += [nn.MaxPool2d(2), nn.Tanh()]
            if dropout:
                parts.append(nn.Dropout2d(dropout))
            return nn.Sequential(*parts)

        self.first = step(3, filters)
        self.second = step(filters, narrow)
        self.blocks = nn.ModuleList(Block(narrow, residual=residual, batch_norm=batch_norm) for _ in range(blocks))
        self.pool = nn.MaxPool2d(2) if pooled else nn.Identity()
        self.hidden = nn.Linear(side * side * narrow, 32)
        self.head = nn.Linear(32, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Standardised pictures [b 3 32 32] to logits [b classes]."""
        x = self.second(self.first(images))
        for block in self.blocks:
            x = block(x)
        x = self.pool(x).flatten(1)
        logits: Tensor = self.head(torch.tanh(self.hidden(x)))
        return logits


def picture_network(variant: str, mean: Sequence[float], deviation: Sequence[float], classes: int = 2) -> nn.Sequential:
    """One of ``VARIANTS`` behind its standardisation.

    Args:
        variant: which.
        mean: of the training pictures' channels, scaled to [0, 1].
        deviation: likewise.
        classes: answers.

    Returns:
        A network from pictures [b 3 32 32] with values of 0 to 255 to logits [b classes].

    Raises:
        TypeError: there is no such variant.
    """
    if variant not in VARIANTS:
        raise TypeError(f"no variant {variant!r}; known: {', '.join(VARIANTS)}")
    net: nn.Module
    if variant == "mlp":
        net = nn.Sequential(nn.Flatten(), nn.Linear(3072, 512), nn.Tanh(), nn.Linear(512, classes))
    else:
        net = PictureNet(**VARIANTS[variant], classes=classes)
    return nn.Sequential(OrderedDict(standardise=Standardise(mean, deviation), net=net))
