"""The type of ``--seed``: NumPy draws nothing from a number below 0, so that none gets past the command line."""

from typing import Annotated

from tyro.constructors import PrimitiveConstructorSpec


def _from_0(words: list[str]) -> int:
    seed = int(words[0])
    if seed < 0:
        raise ValueError(f"{seed} is below 0")
    return seed


Seed = Annotated[
    int,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=_from_0,
        is_instance=lambda value: isinstance(value, int),
        str_from_instance=lambda seed: [str(seed)],
    ),
]
"""A whole number from 0 on."""
