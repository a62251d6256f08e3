"""``carina info``: what lies at a path, and what Carina would read of it. Prints, and knows nothing of voxels."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    from carina.io.series import SeriesInfo


@dataclass
class Info:
    """List the series at a path with the verdict on each."""

    path: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folder or files: DICOM, MetaImage, NIfTI or NRRD."""

    json: bool = False
    """Print JSON instead of a table."""

    def run(self) -> int:
        """Print the list; 1 if nothing at the path can be read as a CT."""
        import msgspec

        from carina.errors import UsageError
        from carina.io import list_series
        from carina.volume import ending_of

        if not self.path:
            raise UsageError("info needs a path: a folder or files")
        # Single DICOM files are slices of one series; what else is named stands for itself, as in `carina detect`.
        alone = [path for path in self.path if path.is_dir() or ending_of(path) is not None]
        slices = [path for path in self.path if path not in alone]
        inputs = [list_series(paths) for paths in (*([path] for path in alone), slices) if paths]
        infos = [info for found in inputs for info in found]
        if self.json:
            print(msgspec.json.format(msgspec.json.encode(infos), indent=2).decode())
        else:
            print("\n".join(_lines(infos)))
            if any(_undecided(found) for found in inputs):
                print("none is read by default (several patients, or several images): name one")
        return 0 if any(info.usable for info in infos) else 1


def _undecided(found: "list[SeriesInfo]") -> bool:
    return any(info.usable for info in found) and not any(info.chosen for info in found)


def _lines(infos: "list[SeriesInfo]") -> list[str]:
    rows = [["", "images", "voxels (z, y, x)", "spacing in mm", "kernel", "series or file"]]
    verdicts = [""]
    for info in infos:
        shape = " x ".join(map(str, info.shape_zyx)) if info.shape_zyx else ""
        spacing = " x ".join(f"{step:.3g}" for step in info.spacing_zyx_mm) if info.spacing_zyx_mm else ""
        name = info.series_uid or Path(info.path).name
        mark = "*" if info.chosen else "+" if info.usable else "-"
        rows.append([mark, str(info.images), shape, spacing, info.kernel, name])
        says = info.verdict if info.usable else f"refused: {info.verdict}"
        verdicts.append(f"{says}{f' ({info.description})' if info.description else ''}")
        if info.chosen:
            verdicts[-1] += f"; chosen: {info.reason}"
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row, verdict in zip(rows, verdicts, strict=True):
        lines.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if verdict:
            lines.append(f"{' ' * (widths[0] + 2)}{verdict}")
    lines.append("* read by default   + can be read   - refused")
    return lines
