"""What a model answered on the crops it was validated with, kept beside its run: runs are compared by these rows.

One CSV, ``held_out.csv``: the series of each crop, then either ``class`` and ``probability`` (which
``carina evaluate nodule`` reads too), or the voxel counts ``both``, ``marked`` and ``true``. Must not know networks.
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from carina.errors import InputError
from carina.learn.batches import Batches
from carina.replacing import replacing

HELD_OUT = "held_out.csv"
"""Name of the file in a run's folder."""

CLASSIFIED = ("class", "probability")
MARKED = ("both", "marked", "true")


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Answers on held-out crops, in the order of validation.

    Attributes:
        series_uid: the series of each crop.
        columns: ``CLASSIFIED`` or ``MARKED``.
        values: one row per crop.
    """

    series_uid: tuple[str, ...]
    columns: tuple[str, ...]
    values: Float64[np.ndarray, "crops columns"]

    @classmethod
    def classified(
        cls, series_uid: tuple[str, ...], truth: Bool[np.ndarray, " n"], probability: Float64[np.ndarray, " n"]
    ) -> "HeldOut":
        """Of a classifier: the truth of each crop, and the probability it was given."""
        return cls(series_uid, CLASSIFIED, np.column_stack([truth, probability]).astype(np.float64))

    @classmethod
    def marked(cls, series_uid: tuple[str, ...], counts: Int64[np.ndarray, "n 3"]) -> "HeldOut":
        """Of a segmentation: voxels both marked and true, marked, and true, of each crop."""
        return cls(series_uid, MARKED, counts.astype(np.float64))

    def same_crops(self, other: "HeldOut") -> bool:
        """Whether both answered the same questions: the same series in the same order with the same truth."""
        truth = self.columns.index(CLASSIFIED[0] if self.columns == CLASSIFIED else MARKED[2])
        return (
            self.columns == other.columns
            and self.series_uid == other.series_uid
            and np.array_equal(self.values[:, truth], other.values[:, truth])
        )

    def write(self, run_dir: Path) -> None:
        """Write ``held_out.csv`` into a run's folder; an older one is replaced whole or not at all."""
        with replacing(run_dir / HELD_OUT) as draft, draft.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("seriesuid", *self.columns))
            for uid, row in zip(self.series_uid, self.values.tolist(), strict=True):
                writer.writerow((uid, *(f"{value:.9g}" for value in row)))

    @classmethod
    def read(cls, run_dir: Path) -> "HeldOut":
        """Read what ``write`` wrote.

        Raises:
            InputError: the table is missing or of another form.
        """
        path = run_dir / HELD_OUT
        try:
            with path.open(newline="", encoding="utf-8") as file:
                header, *rows = list(csv.reader(file))
            columns = tuple(header[1:])
            if header[:1] != ["seriesuid"] or columns not in (CLASSIFIED, MARKED):
                raise InputError(f"{path}: columns {', '.join(header)} are not those of a table of held-out crops")
            values = np.array([[float(value) for value in row[1:]] for row in rows], np.float64)
            return cls(tuple(row[0] for row in rows), columns, values.reshape(len(rows), len(columns)))
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read {path}: {error}; train again, or delete it") from error


def series_of(batches: Batches[Any]) -> tuple[str, ...]:
    """The series of each crop of the batches' epoch 0, in order."""
    return tuple(uid for index in range(batches.count) for uid in batches.make(0, index).series_uids)
