"""The smallest networks: a straight line, and one hidden layer of tanh. Must not know what is measured or trained."""

from collections import OrderedDict

import torch
from torch import Tensor, nn


class Line(nn.Module):
    """``w * x + b`` with both numbers in the open, starting at (1, 0)."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(1.0))
        self.b = nn.Parameter(torch.tensor(0.0))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [any shape] to the line's height there."""
        height: Tensor = self.w * x + self.b
        return height


def small_network(hidden: int = 8) -> nn.Sequential:
    """One number in, ``hidden`` tanh units, one number out; every layer has a name.

    Args:
        hidden: units between input and output.

    Returns:
        A network from [n 1] to [n 1].
    """
    return nn.Sequential(
        OrderedDict(
            hidden_linear=nn.Linear(1, hidden),
            hidden_activation=nn.Tanh(),
            output_linear=nn.Linear(hidden, 1),
        )
    )
