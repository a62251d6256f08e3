"""What is exported: a network with its card, the form of its input, and how its logits become probabilities.

Must not know formats or files other than weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import expit, softmax
from torch import Tensor, nn
from torch.export import Dim

from carina.errors import UsageError
from carina.models.card import Card, load_model
from carina.models.unet import UNet
from carina.models.unet3d import UNet3d

FREE = -1
"""An axis of any length, in the way ONNX and Triton write it."""

_STEPS = (3, 4, 2)
"""Example lengths of free axes other than the batch, in multiples of what the network takes."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A network that is to be exported.

    Attributes:
        name: stem of its files.
        module: the network in evaluation mode, float32, on the CPU.
        card: what is known about it.
    """

    name: str
    module: nn.Module
    card: Card

    @classmethod
    def load(cls, path: Path) -> "Subject":
        """Read a network that ``save_model`` wrote; its files take the name of the weights.

        Raises:
            WeightsError: missing, damaged, or not fitting the card.
        """
        module, card = load_model(path)
        return cls(path.name.removesuffix(".safetensors").removesuffix(".json"), module.requires_grad_(False), card)

    @property
    def input_name(self) -> str:
        """Name of the input in formats that have names."""
        return {"unet": "slices", "unet3d": "blocks", "nodule": "crops", "picture": "images"}.get(
            self.card.spec["kind"], "values"
        )

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of a batch; ``FREE`` where any length will do (of height and width: any multiple of ``multiple``)."""
        if isinstance(self.module, UNet):
            return (FREE, self.module.input_norm.num_features, FREE, FREE)
        match self.card.spec["kind"]:
            case "unet3d":
                return (FREE, 1, FREE, FREE, FREE)
            case "nodule":
                return (FREE, 1, *self.card.spec.get("crop_zyx", self.card.preprocessing.crop_zyx))
            case "picture":
                return (FREE, 3, 32, 32)
            case "line" | "linear" | "small":
                return (FREE, 1)
            case other:
                raise UsageError(f"networks of kind {other!r} cannot be exported; no input is known for them")

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the logits, likewise."""
        if self.card.spec["kind"] == "unet":
            return (FREE, 1, FREE, FREE)
        if self.card.spec["kind"] == "unet3d":
            return self.input_shape
        return (FREE, *self.module(self.example(1)).shape[1:])

    @property
    def multiple(self) -> int:
        """Height and width of slices must be multiples of this; 1 for other networks."""
        return 2 ** (len(self.module.down) - 1) if isinstance(self.module, UNet | UNet3d) else 1

    def shape(self, batch: int, steps: Sequence[int] = _STEPS) -> tuple[int, ...]:
        """``input_shape`` with its free axes filled: ``batch``, then ``steps`` multiples of ``multiple``."""
        filled = iter((batch, *(self.multiple * step for step in steps)))
        return tuple(next(filled) if length == FREE else length for length in self.input_shape)

    def example(self, batch: int, steps: Sequence[int] = _STEPS, seed: int = 0) -> Float[Tensor, "b *input"]:
        """Random input in the range that the network was trained on."""
        values = np.random.default_rng(seed).uniform(-1, 1, self.shape(batch, steps)).astype(np.float32)
        if self.card.spec["kind"] == "picture":
            values = np.round(127.5 * (values + 1))
        return torch.from_numpy(values)

    def dynamic_axes(self, batch: bool = True, longest: int | None = None) -> dict[int, Dim]:
        """The free axes as ``torch.export`` wants them.

        Args:
            batch: the first axis too; else it has length 1.
            longest: longest height and width, for runtimes that lay out their memory beforehand.
        """
        top = None if longest is None else longest // self.multiple
        names = iter(
            ("batch", "height", "width") if len(self.input_shape) < 5 else ("batch", "depth", "height", "width")
        )
        axes = {axis: next(names) for axis, length in enumerate(self.input_shape) if length == FREE}
        free = {
            axis: Dim("batch", min=1) if axis == 0 else self.multiple * Dim(f"{name}_steps", min=2, max=top)
            for axis, name in axes.items()
        }
        return free if batch else {axis: dim for axis, dim in free.items() if axis > 0}

    def probability(self, logits: Float[np.ndarray, "b *output"]) -> Float[np.ndarray, "b *answer"]:
        """The positive class's probability from logits; networks that give a number give it unchanged."""
        match self.card.spec["kind"]:
            case "unet" | "unet3d":
                return np.asarray(expit(logits[:, 0]))
            case "nodule" | "picture":
                return np.asarray(softmax(logits, axis=1)[:, 1])
            case _:
                return logits
