"""The form that every evaluation is presented in: a few sentences, tables, plots, and the figures as data.

One ``Summary`` is printed as text, written as JSON and drawn as a page. Must not know what was evaluated.
"""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from carina.evaluate.page import Plot, Table, render_page
from carina.findings import RESEARCH_USE
from carina.replacing import replacing


@dataclass(frozen=True)
class Summary:
    """The result of one evaluation.

    Attributes:
        title: what was evaluated.
        notes: sentences that say how, one each.
        tables: what a reader wants first.
        plots: curves.
        data: the figures, a frozen dataclass; arrays are allowed.
    """

    title: str
    notes: tuple[str, ...]
    tables: tuple[Table, ...]
    plots: tuple[Plot, ...]
    data: Any

    def to_text(self) -> str:
        """Title, tables and notes for a terminal."""
        blocks = [self.title, *(_text_table(table) for table in self.tables), "\n".join(self.notes)]
        return "\n\n".join(block for block in blocks if block)

    def to_json(self) -> str:
        """The figures as indented JSON; what does not exist (NaN) is null."""
        document = {"title": self.title, "notes": self.notes, "result": _plain(self.data), "notice": RESEARCH_USE}
        return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"

    def write(self, folder: Path) -> dict[str, Path]:
        """Write ``summary.json``, ``summary.txt`` and ``index.html`` into a folder; returns their paths.

        A file appears whole or not at all; files of an earlier evaluation are replaced.
        """
        folder.mkdir(parents=True, exist_ok=True)
        contents = {
            "summary.txt": self.to_text() + "\n",
            "index.html": render_page(self.title, self.notes, self.tables, self.plots),
            "summary.json": self.to_json(),
        }
        for name, text in contents.items():
            with replacing(folder / name) as draft:
                draft.write_text(text, encoding="utf-8")
        return {name: folder / name for name in contents}


def _text_table(table: Table) -> str:
    widths = [max(len(row[i]) for row in (table.header, *table.rows)) for i in range(len(table.header))]
    lines = []
    for row in (table.header, *table.rows):
        # First column names the row, the others are figures.
        cells = [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([table.title, *lines] if table.title else lines)


def _plain(value: Any) -> Any:
    """Dataclasses, arrays and NumPy numbers as what JSON knows."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, msgspec.Struct):
        return _plain(msgspec.to_builtins(value))
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
