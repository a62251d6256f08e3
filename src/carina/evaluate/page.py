"""Tables and curves as one self-contained HTML page; the curves are SVG in the text.

No script, no font, no address outside the file. Must not know what the numbers mean.
"""

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from carina.findings import RESEARCH_USE

WIDTH, HEIGHT = 460, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 14, 12, 46
_COLORS = ("#0d6e78", "#b4541a", "#5b4aa0", "#8f7a00", "#b0305c")
_COMPARISON = "#8a99a1"


@dataclass(frozen=True)
class Table:
    """A table of text; the first column names the rows."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Line:
    """One line of a plot.

    Attributes:
        label: for the legend; "" for none.
        points: (x, y) along the line.
        low_high: lower and upper end of the interval at each point, drawn as bars; empty for none.
        marks: whether to draw the points themselves.
        dashed: for lines of comparison.
    """

    label: str
    points: tuple[tuple[float, float], ...]
    low_high: tuple[tuple[float, float], ...] = ()
    marks: bool = False
    dashed: bool = False


@dataclass(frozen=True)
class Plot:
    """A plot whose y axis runs from 0 to 1.

    Attributes:
        title: what it shows.
        x_label: name of the x axis.
        y_label: name of the y axis.
        x_ticks: values to mark on the x axis; the first and last are its ends.
        lines: what to draw.
        log_x: whether the x axis is logarithmic. Lines are cut at the first and last tick.
    """

    title: str
    x_label: str
    y_label: str
    x_ticks: tuple[float, ...]
    lines: tuple[Line, ...]
    log_x: bool = False


@dataclass(frozen=True)
class Shot:
    """Pictures of one thing, side by side, as PNG, with what they show."""

    caption: str
    png: tuple[bytes, ...]


_STYLE = """
:root { color-scheme: light dark; --page: #f4f6f7; --sheet: #fff; --ink: #17242b; --soft: #5a6b74; --line: #dfe5e8; }
@media (prefers-color-scheme: dark) {
  :root { --page: #0e1518; --sheet: #162024; --ink: #e4ecef; --soft: #98a9b1; --line: #28363c; }
}
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; font-variant-numeric: tabular-nums; }
main { max-width: 1000px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 16px; margin: 0 0 10px; }
.soft { color: var(--soft); }
.sheet { background: var(--sheet); border: 1px solid var(--line); border-radius: 10px;
  padding: 18px 20px; margin: 18px 0; overflow-x: auto; }
.plots { display: flex; flex-wrap: wrap; gap: 18px; } .plots .sheet { margin: 0; flex: 1 1 440px; max-width: 560px; }
table { border-collapse: collapse; } th, td { padding: 4px 14px 4px 0; text-align: right; }
th:first-child, td:first-child { text-align: left; } tr + tr > * { border-top: 1px solid var(--line); }
section > svg { width: 100%; height: auto; display: block; } svg text { fill: var(--soft); font-size: 12px; }
figure { display: inline-block; margin: 6px 14px 12px 0; } figure img { margin-right: 4px; }
figcaption { color: var(--soft); font-size: 13px; }
.grid { stroke: var(--line); stroke-width: 1; } .curve { fill: none; stroke-width: 2; stroke-linejoin: round; }
"""


def render_page(title: str, notes: tuple[str, ...], tables: tuple[Table, ...], plots: tuple[Plot, ...]) -> str:
    """One HTML document with everything in it."""
    parts = [_html_table(table) for table in tables]
    if plots:
        drawn = "".join(f'<section class="sheet"><h2>{escape(plot.title)}</h2>{draw(plot)}</section>' for plot in plots)
        parts.append(f'<div class="plots">{drawn}</div>')
    if notes:
        parts.append('<section class="sheet soft">' + "".join(f"<p>{escape(n)}</p>" for n in notes) + "</section>")
    return _page(title, parts)


def render_gallery(title: str, notes: tuple[str, ...], sections: Sequence[tuple[str, Sequence[Shot]]]) -> str:
    """One HTML document with pictures under headings."""
    parts = ['<section class="sheet soft">' + "".join(f"<p>{escape(n)}</p>" for n in notes) + "</section>"]
    for heading, shots in sections:
        figures = "".join(
            "<figure>"
            + "".join(f'<img alt="" src="data:image/png;base64,{base64.b64encode(p).decode()}">' for p in shot.png)
            + f"<figcaption>{escape(shot.caption)}</figcaption></figure>"
            for shot in shots
        )
        parts.append(f'<section class="sheet"><h2>{escape(heading)}</h2>{figures or "<p>None.</p>"}</section>')
    return _page(title, parts)


def _page(title: str, parts: Sequence[str]) -> str:
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>"
        f'<h1>{escape(title)}</h1><p class="soft">Carina. {escape(RESEARCH_USE)}</p>'
        f"{''.join(parts)}</main></body></html>\n"
    )


def draw(plot: Plot) -> str:
    """A plot as one SVG element."""
    pieces = []
    left, right, top, bottom = _LEFT, WIDTH - _RIGHT, _TOP, HEIGHT - _BOTTOM
    for tick in plot.x_ticks:
        x = _x(plot, tick)
        pieces.append(f'<line class="grid" x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}"/>')
        pieces.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{tick:g}</text>')
    for tick in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        y = _y(tick)
        pieces.append(f'<line class="grid" x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
        pieces.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    middle = (top + bottom) / 2
    pieces.append(
        f'<text x="{(left + right) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(plot.x_label)}</text>'
        f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">'
        f"{escape(plot.y_label)}</text>"
    )
    for number, line in enumerate(plot.lines):
        pieces.append(_draw_line(plot, line, _color(number, line)))
    named = [(n, line) for n, line in enumerate(plot.lines) if line.label]
    for row, (number, line) in enumerate(named):
        y = bottom - 10 - 16 * (len(named) - 1 - row)
        dash = ' stroke-dasharray="5 4"' if line.dashed else ""
        pieces.append(
            f'<line x1="{right - 30}" y1="{y - 4}" x2="{right - 8}" y2="{y - 4}" stroke-width="2"{dash} '
            f'stroke="{_color(number, line)}"/>'
            f'<text x="{right - 36}" y="{y}" text-anchor="end">{escape(line.label)}</text>'
        )
    name = escape(f"{plot.title}: {plot.y_label} against {plot.x_label}")
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">{"".join(pieces)}</svg>'


def _draw_line(plot: Plot, line: Line, color: str) -> str:
    pieces = []
    if not line.marks:
        path = " ".join(f"{_x(plot, x):.1f},{_y(y):.1f}" for x, y in line.points)
        dash = ' stroke-dasharray="5 4"' if line.dashed else ""
        # An inner svg cuts off what lies outside of it; two pixels more keep lines along the edge whole.
        box = f"{_LEFT - 2} {_TOP - 2} {WIDTH - _LEFT - _RIGHT + 4} {HEIGHT - _TOP - _BOTTOM + 4}"
        x, y, width, height = box.split()
        pieces.append(
            f'<svg x="{x}" y="{y}" width="{width}" height="{height}" viewBox="{box}">'
            f'<polyline class="curve" stroke="{color}"{dash} points="{path}"/></svg>'
        )
    else:
        pieces += [f'<circle cx="{_x(plot, x):.1f}" cy="{_y(y):.1f}" r="3.5" fill="{color}"/>' for x, y in line.points]
    for (x_value, _), (low, high) in zip(line.points, line.low_high, strict=False):
        if math.isfinite(low) and math.isfinite(high):
            at = f"{_x(plot, x_value):.1f}"
            pieces.append(f'<path stroke="{color}" stroke-width="1.2" d="M{at} {_y(low):.1f}V{_y(high):.1f}"/>')
    return "".join(pieces)


def _color(number: int, line: Line) -> str:
    return _COMPARISON if line.dashed else _COLORS[number % len(_COLORS)]


def _x(plot: Plot, value: float) -> float:
    first, last = plot.x_ticks[0], plot.x_ticks[-1]
    if plot.log_x:
        # 0 lies infinitely far to the left; a thousandth of the first tick is far enough.
        at = math.log(max(value, first / 1000) / first) / math.log(last / first)
    else:
        at = (value - first) / (last - first)
    return _LEFT + at * (WIDTH - _LEFT - _RIGHT)


def _y(value: float) -> float:
    return HEIGHT - _BOTTOM - value * (HEIGHT - _TOP - _BOTTOM)


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    title = f"<h2>{escape(table.title)}</h2>" if table.title else ""
    return f'<section class="sheet">{title}<table><tr>{head}</tr>{body}</table></section>'
