"""A CT as a tensor. The reading is ``carina.io``'s; must not know what is done with it."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float32
from torch import Tensor

from carina.io import read_ct


def ct_tensor(path: str | Path | Sequence[Path]) -> Float32[Tensor, "1 z y x"]:
    """Read a CT as one channel of HU.

    Args:
        path: whatever ``carina.io.read_ct`` reads.

    Raises:
        InputError: as there.
    """
    return torch.from_numpy(read_ct(path).hu.astype("float32"))[None]
