"""CSV tables that the protocols compare: detections with a score, nodules with a diameter, lists of series.

Positions are patient millimetres in LPS. Columns are read whole into arrays, so that tens of thousands of rows take
tens of milliseconds. Must not know how the rows are matched or scored.
"""

import csv
import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64

from carina.errors import InputError
from carina.findings import Report

POSITION = ("coordX", "coordY", "coordZ")


@dataclass(frozen=True, eq=False)
class Detections:
    """Scored marks of one system.

    Attributes:
        series_uid: scan of each mark.
        center_lps: position of each mark in mm.
        score: how sure the system is; only the order matters.
        scans: every scan the system is known to have looked at, also those without a mark.
    """

    series_uid: tuple[str, ...]
    center_lps: Float64[np.ndarray, "n 3"]
    score: Float64[np.ndarray, " n"]
    scans: frozenset[str]

    def with_scans(self, scans: Set[str]) -> "Detections":
        """The same marks, known to come from these scans too."""
        return replace(self, scans=self.scans | frozenset(scans))

    def where(self, keep: Bool[np.ndarray, " n"]) -> "Detections":
        """The marks for which ``keep`` holds, in the same order, of the same scans."""
        uids = tuple(self.series_uid[i] for i in np.flatnonzero(keep))
        return Detections(uids, self.center_lps[keep], self.score[keep], self.scans)


@dataclass(frozen=True, eq=False)
class Nodules:
    """Marks of the truth.

    Attributes:
        series_uid: scan of each nodule.
        center_lps: centre of each nodule in mm.
        diameter_mm: its diameter; -1 where unknown.
        type: ``solid``, ``part-solid``, ``ground-glass``, ``calcified`` or "" where the table does not say.
    """

    series_uid: tuple[str, ...]
    center_lps: Float64[np.ndarray, "n 3"]
    diameter_mm: Float64[np.ndarray, " n"]
    type: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.series_uid)

    def where(self, keep: Bool[np.ndarray, " n"]) -> "Nodules":
        """The nodules for which ``keep`` holds, in the same order."""
        chosen = np.flatnonzero(keep)
        return Nodules(
            tuple(self.series_uid[i] for i in chosen),
            self.center_lps[chosen],
            self.diameter_mm[chosen],
            tuple(self.type[i] for i in chosen),
        )


NO_NODULES = Nodules((), np.zeros((0, 3)), np.zeros(0), ())
"""An empty truth, for cohorts without excluded findings."""


@dataclass(frozen=True)
class Columns:
    """A table, column by column.

    Attributes:
        path: the file.
        texts: what stands in each column, by the column's name.
        lines: the file's line of each row; blank lines are no rows.
    """

    path: Path
    texts: Mapping[str, list[str]]
    lines: Sequence[int]

    def where(self, index: int) -> str:
        """File and line of a row, for messages."""
        return f"{self.path}, line {self.lines[index]}"

    def numbers(self, name: str, empty: float | None = None) -> Float64[np.ndarray, " n"]:
        """A column as finite numbers; ``empty`` stands where a field is empty, unless it is None.

        Raises:
            InputError: a value is not a finite number; says in which line.
        """
        texts = self.texts[name]
        try:
            values = np.array(list(map(float, texts)))
        except ValueError:
            values = np.array([_number(text) for text in texts])
        given = np.array([empty is None or text != "" for text in texts], bool)
        bad = np.flatnonzero(given & ~np.isfinite(values))
        if len(bad):
            raise InputError(f"{self.where(int(bad[0]))}: {name} is {texts[bad[0]]!r}, expected a finite number")
        return values if empty is None else np.where(given, values, empty)


def read_columns(path: Path, required: Sequence[str]) -> Columns:
    """Read a CSV with a header line.

    Args:
        path: the file; UTF-8, with or without a byte-order mark.
        required: columns that must be there; others are kept too.

    Raises:
        InputError: the file cannot be read, a column is missing, or a row is of another length than the header.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            found = [(reader.line_num, row) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read the table {path}: {error}") from error
    header = [name.strip() for name in found[0][1]] if found else []
    missing = [name for name in required if name not in header]
    if missing:
        raise InputError(f"{path}: column {', '.join(missing)} is missing; the header is {','.join(header)!r}")
    for line, row in found[1:]:
        if len(row) != len(header):
            raise InputError(f"{path}, line {line}: {len(row)} values under {len(header)} column names")
    columns = list(zip(*(row for _, row in found[1:]), strict=True)) or [()] * len(header)
    texts = {name: [value.strip() for value in column] for name, column in zip(header, columns, strict=True)}
    return Columns(path, texts, [line for line, _ in found[1:]])


def read_detections(path: Path) -> Detections:
    """Read marks in LUNA16's form (seriesuid, coordX, coordY, coordZ, probability).

    Args:
        path: a CSV, or a folder as ``carina detect`` writes it: every ``findings.csv`` in it and in its subfolders
            counts, and a ``report.json`` beside it tells that the scan was looked at even without a finding.

    Raises:
        InputError: nothing to read, a table that is not of that form, or a series in more than one of them.
    """
    return _read_detections(path, ())[0]


def read_detections_with(
    path: Path, column: str, *, empty: float | None = None
) -> tuple[Detections, Float64[np.ndarray, " n"]]:
    """Read marks as ``read_detections`` does, and one more column of numbers.

    Args:
        path: as there.
        column: name of the other column.
        empty: what an empty field stands for; None: a number must be there.

    Raises:
        InputError: as there, or the column is missing.
    """
    detections, (values,) = _read_detections(path, (column,), empty)
    return detections, values


def read_nodules(path: Path) -> Nodules:
    """Read annotations in LUNA16's form (seriesuid, coordX, coordY, coordZ, diameter_mm), ``type`` where given.

    Raises:
        InputError: not such a table.
    """
    columns = read_columns(path, ["seriesuid", *POSITION, "diameter_mm"])
    return Nodules(
        tuple(columns.texts["seriesuid"]),
        np.stack([columns.numbers(axis) for axis in POSITION], axis=1),
        columns.numbers("diameter_mm"),
        tuple(columns.texts.get("type", [""] * len(columns.lines))),
    )


def read_series(path: Path) -> list[str]:
    """Read a list of series UIDs, one per line; a header line ``seriesuid`` and further columns are allowed.

    Raises:
        InputError: the file cannot be read, is empty, or names a series twice.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the list of series {path}: {error}") from error
    names = [line.split(",")[0].strip() for line in lines if line.strip()]
    names = names[1:] if names[:1] == ["seriesuid"] else names
    if not names:
        raise InputError(f"{path} names no series")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{path} names series {twice} more than once")
    return names


def _read_detections(
    path: Path, extra: tuple[str, ...], empty: float | None = None
) -> tuple[Detections, tuple[Float64[np.ndarray, " n"], ...]]:
    files = sorted(path.rglob("findings.csv")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path}: no findings.csv in this folder or below it; expected output of `carina detect`")
    reports = [Report.read(file) for file in sorted(path.rglob("report.json"))]
    uids: list[str] = []
    file_of: dict[str, Path] = {}
    blocks: list[Float64[np.ndarray, "columns n"]] = []
    for file in files:
        names = (*POSITION, "probability", *extra)
        columns = read_columns(file, ["seriesuid", *names])
        series = columns.texts["seriesuid"]
        if twice := file_of.keys() & set(series):
            uid = min(twice)
            raise InputError(f"series {uid} has findings in {file_of[uid]} and in {file}; keep one of them")
        file_of |= dict.fromkeys(series, file)
        uids += series
        blocks.append(np.stack([columns.numbers(name, empty if name in extra else None) for name in names]))
    table = np.concatenate(blocks, axis=1)
    looked_at = {report.input.series_uid or report.case_id for report in reports}
    return Detections(tuple(uids), table[:3].T, table[3], frozenset({*uids, *looked_at})), tuple(table[4:])


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
