"""Checkpoints: one file, complete or absent, that loads without running code.

Must not know what is in them beyond tensors, numbers, strings, lists and dicts.
"""

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from carina.errors import TrainingError
from carina.replacing import replacing


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write under a temporary name, then rename: a killed run leaves the previous checkpoint whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, durable=True) as draft, draft.open("wb") as file:
        torch.save(state, file)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU; only plain data is accepted.

    Raises:
        TrainingError: damaged, or not a checkpoint.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise TrainingError(f"{path} is not a readable checkpoint ({error}); delete it to start again") from error
    return state


def to_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A copy that later training does not change."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
