"""How every artefact is called: float32 arrays in, float32 logits out. Must not know formats."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

Runner: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""Takes a batch, gives its logits."""
