"""Networks in PyTorch: channels-last, in half precision on CUDA. Must not know the stages or other runtimes."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from torch import nn

Compute: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""Takes a float32 batch, gives the float32 logits."""

_CPU_BATCH, _CPU_VOXELS = 4, 300_000
"""On a CPU more than a few inputs, or more voxels than this, gain no time and cost memory for their features."""
_LARGEST_BATCH = 64
_BYTES_PER_VOXEL = 200
"""Of CUDA memory per voxel of the U-Net's input slice, in half precision: all features of its widest level, twice."""


def prepare(module: nn.Module, device: torch.device) -> tuple[Compute, str]:
    """Make a network ready to be called.

    On CUDA the weights and all that flows between them have half precision (float16), as its matrix units want it.

    Returns:
        What computes its logits, and the version of PyTorch.
    """
    dimensions = max(parameter.ndim for parameter in module.parameters())
    # The layout in which oneDNN and cuDNN convolve fastest; the input follows the weights.
    layout = torch.channels_last_3d if dimensions == 5 else torch.channels_last
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    module = module.eval().requires_grad_(False).to(device=device, dtype=dtype)
    module = module.to(memory_format=layout)  # type: ignore[call-overload]

    def compute(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            logits: torch.Tensor = module(torch.from_numpy(batch).to(device, dtype))
            return logits.float().cpu().numpy()

    return compute, torch.__version__


def batch_that_fits(device: torch.device, voxels: int) -> int:
    """How many inputs of this many voxels to compute at once."""
    if device.type != "cuda":
        return min(max(_CPU_VOXELS // voxels, 1), _CPU_BATCH)
    free, _ = torch.cuda.mem_get_info(device)
    return int(min(max(free // (2 * _BYTES_PER_VOXEL * voxels), 1), _LARGEST_BATCH))
