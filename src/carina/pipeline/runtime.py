"""Which network runs where: the one place that chooses a device.

A ``Network`` takes and gives NumPy arrays, so that the stages of the pipeline do not care what computes them.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32

from carina.errors import UsageError
from carina.models.card import Card, load_model


def choose_device(name: str = "auto") -> torch.device:
    """The torch device of that name; ``auto`` takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        UsageError: the device is unknown or not present on this machine.
    """
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if present[kind]))
    kind = name.partition(":")[0]
    if kind not in present:
        raise UsageError(f"unknown device {name!r}; choose one of auto, {', '.join(present)}")
    if not present[kind]:
        raise UsageError(f"device {name!r} is not present on this machine; use --device cpu or auto")
    return torch.device(name)


@dataclass(frozen=True)
class Network:
    """A trained network, ready to be called on batches.

    Attributes:
        card: what the network is, how its input is made and what is known about it.
        module: the network in evaluation mode, on ``device``.
        device: where it runs.
    """

    card: Card
    module: torch.nn.Module
    device: torch.device

    @classmethod
    def load(cls, path: Path, device: torch.device) -> "Network":
        """Load weights and card.

        Raises:
            WeightsError: missing, damaged, or not fitting their card.
        """
        module, card = load_model(path)
        # Channels-last is the layout oneDNN and cuDNN convolve fastest in.
        layout = torch.channels_last_3d if card.task == "nodule" else torch.channels_last
        module = module.eval().to(device)
        for parameter in module.parameters():
            parameter.requires_grad_(False)
            if parameter.ndim == (5 if card.task == "nodule" else 4):
                parameter.data = parameter.data.contiguous(memory_format=layout)
        return cls(card, module, device)

    @property
    def runtime(self) -> str:
        """What runs the network, for the report."""
        return f"torch {torch.__version__} on {self.device}"

    def __call__(self, batch: Float32[np.ndarray, "batch *input"]) -> Float32[np.ndarray, "batch *output"]:
        """Logits of one batch."""
        with torch.inference_mode():
            logits: torch.Tensor = self.module(torch.from_numpy(batch).to(self.device))
        return logits.float().cpu().numpy()
