"""A CSV table as tensors: numbers as they are, named values as one column each. Pandas parses.

Must not know what the columns mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from carina.errors import InputError


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of a table.

    Attributes:
        values: one row per line of the file.
        names: of the columns; a column of named values becomes ``COLUMN=VALUE`` for each value.
        target: the column that shall be predicted, None where none was named.
    """

    values: Float32[Tensor, "rows columns"]
    names: tuple[str, ...]
    target: Float32[Tensor, " rows"] | None = None

    def standardised(self) -> Float32[Tensor, "rows columns"]:
        """Every column shifted and scaled to mean 0 and deviation 1; a column of one value becomes 0."""
        deviation = self.values.std(0, correction=0)
        return (self.values - self.values.mean(0)) / torch.where(deviation > 0, deviation, 1.0)


def read_table(path: str | Path, *, target: str | None = None, separator: str | None = None) -> Table:
    """Read a CSV table with a header line.

    Args:
        path: the file.
        target: column that becomes ``Table.target`` and not a value.
        separator: between columns; None finds out whether comma, semicolon or tab.

    Raises:
        InputError: not a table, a value is missing, or there is no such target.
    """
    frame = read_frame(path, separator)
    wanted = None
    if target is not None:
        if target not in frame:
            raise InputError(f"{path} has no column {target!r}; its columns are {', '.join(frame.columns)}")
        column = frame.pop(target)
        if not pd.api.types.is_numeric_dtype(column):
            raise InputError(f"{path}: column {target!r} holds {column.iloc[0]!r}, expected numbers")
        wanted = torch.tensor(column.to_numpy("float32"))
    frame = pd.get_dummies(frame, prefix_sep="=")
    return Table(torch.tensor(frame.to_numpy("float32")), tuple(map(str, frame.columns)), wanted)


def read_frame(path: str | Path, separator: str | None = None, *, dates: Sequence[str] = ()) -> pd.DataFrame:
    """Read a CSV table with a header line and refuse holes in it.

    Args:
        path: the file.
        separator: as in ``read_table``.
        dates: columns that hold dates.

    Raises:
        InputError: not a table, a value is missing, or a date cannot be understood.
    """
    try:
        if separator is None:  # the one that parts the header into the most columns
            separator = max("\t;,", key=lambda one: len(pd.read_csv(path, sep=one, nrows=0).columns))
        frame = pd.read_csv(path, sep=separator, parse_dates=list(dates))
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise InputError(f"{path} cannot be read as a table with a header line ({error})") from error
    if frame.empty:
        raise InputError(f"{path} holds a header and no rows")
    holes = np.argwhere(frame.isna().to_numpy())
    if len(holes):
        row, column = holes[0]
        name = frame.columns[column]
        raise InputError(f"{path}: column {name!r} has no value in row {row + 2}; fill it or leave the row out")
    return frame


def one_hot(index: Int64[Tensor, " n"], classes: int) -> Float32[Tensor, "n classes"]:
    """Each number as a row of zeros with a one at its place.

    Raises:
        InputError: a number outside 0 .. classes - 1.
    """
    if len(index) and not (int(index.min()) >= 0 and int(index.max()) < classes):
        raise InputError(f"values from {int(index.min())} to {int(index.max())}, expected 0 to {classes - 1}")
    rows = torch.zeros(len(index), classes)
    return rows.scatter_(1, index[:, None], 1.0)
