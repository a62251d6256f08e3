"""``report.html``: the report as one self-contained page with pictures, for reading, printing and archiving.

Nothing is loaded from elsewhere and no script runs. Of the patient's identity it shows the case's name only; paths,
study UID and PatientID stay out. Every text is escaped.

Must not know how findings are made or where files lie.
"""

import base64
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from jaxtyping import Integer
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from carina import hu
from carina.findings import Finding, Report
from carina.report.outline import outline, svg_path
from carina.report.pictures import Picture, View, projections, views
from carina.volume import Volume

PICTURED = 20
"""Findings beyond this many are listed in the table without pictures, so that the page stays small."""

_PIXELS = 224
_WINDOWS = (("lung", hu.LUNG_WINDOW), ("soft tissue", hu.SOFT_TISSUE_WINDOW))


@dataclass(frozen=True)
class _Frame:
    """A picture as the template draws it; lengths in units of its drawing."""

    name: str
    window: str
    url: str
    width: int
    height: int
    letters: tuple[str, str, str, str]
    bar: float
    bar_mm: int


@dataclass(frozen=True)
class _Row:
    """The frames of one window, axial, coronal and sagittal."""

    window: str
    frames: tuple[_Frame, ...]


@dataclass(frozen=True)
class _Card:
    """One finding with its pictures; ``outlines`` holds one SVG path per plane, by the plane's name."""

    finding: Finding
    rows: tuple[_Row, ...]
    outlines: dict[str, str]
    field_mm: float


@dataclass(frozen=True)
class _Marker:
    """Where a finding lies in an overview."""

    id: int
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class _Overview:
    """The whole CT from one side, with a marker per finding."""

    frame: _Frame
    markers: tuple[_Marker, ...]


def render_html(report: Report, *, volume: Volume, labels: Integer[np.ndarray, "z y x"] | None) -> str:
    """The page as text.

    Args:
        report: what to show.
        volume: the CT that was analysed.
        labels: on the volume's grid, 0 or the ``id`` of a voxel's finding; None: no outlines.
    """
    findings = sorted(report.findings, key=lambda f: (-f.p_nodule, f.id))
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, number=number, seconds=seconds, moment=moment)
    return environment.get_template("report.html.j2").render(
        report=report,
        findings=findings,
        driver=next((f for f in findings if f.id == report.patient.finding_id), None),
        cards=[_card(finding, volume, labels) for finding in findings[:PICTURED]],
        pictured={finding.id for finding in findings[:PICTURED]},
        overviews=[_overview(picture, findings) for picture in projections(volume)],
        malignancy=next((m for m in report.models if m.role == "malignancy"), None),
        outlined=labels is not None and bool(findings),
    )


def percent(share: float | None) -> str:
    """A probability for people: whole percent, and never a false 0 or 100."""
    if share is None:
        return "\N{EN DASH}"
    if share < 0.005:
        return "< 1\N{NO-BREAK SPACE}%"
    if share >= 0.995:
        return "> 99\N{NO-BREAK SPACE}%"
    return f"{100 * share:.0f}\N{NO-BREAK SPACE}%"


def number(value: float, digits: int = 1) -> str:
    """A number with a real minus sign and thin spaces between thousands."""
    text = f"{value:,.{digits}f}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    if not any(c in "123456789" for c in text):
        text = text.lstrip("-")
    return text.replace("-", "\N{MINUS SIGN}")


def seconds(value: float) -> str:
    """A duration: two digits below ten seconds, minutes from two minutes on."""
    if value >= 120:
        minutes, rest = divmod(round(value), 60)
        return f"{minutes}\N{NO-BREAK SPACE}min {rest:02d}\N{NO-BREAK SPACE}s"
    return f"{value:.{1 if value >= 10 else 2}f}\N{NO-BREAK SPACE}s"


def moment(iso: str) -> str:
    """A time stamp to the minute; left as it is where it is no ISO 8601."""
    try:
        return f"{datetime.fromisoformat(iso):%Y-%m-%d %H:%M %Z}".strip()
    except ValueError:
        return iso


def _card(finding: Finding, volume: Volume, labels: Integer[np.ndarray, "z y x"] | None) -> _Card:
    # The same 64 mm for all that fit, so that sizes can be compared from card to card.
    field_mm = max(64.0, min(2.2 * finding.diameter_mm, 160.0))
    planes = views(
        volume,
        finding.center_lps,
        field_mm=field_mm,
        pixels=_PIXELS,
        region=labels,
        region_value=finding.id,
    )
    rows = tuple(_Row(name, tuple(_view_frame(view, name, window) for view in planes)) for name, window in _WINDOWS)
    return _Card(finding, rows, {view.plane.name: svg_path(outline(view.inside)) for view in planes}, field_mm)


def _view_frame(view: View, window: str, window_hu: tuple[int, int]) -> _Frame:
    return _frame(view.picture(window_hu), window, bar_mm=10, units=1.0)


def _overview(picture: Picture, findings: list[Finding]) -> _Overview:
    markers = []
    units = picture.pixel_mm  # the drawing is in millimetres
    for finding in findings:
        x, y = picture.to_pixel(finding.center_lps)
        radius = max(finding.diameter_mm / 2 + 3, 6.0)
        markers.append(_Marker(finding.id, round(x * units, 1), round(y * units, 1), round(radius, 1)))
    return _Overview(_frame(picture, "mean", bar_mm=50, units=units), tuple(markers))


def _frame(picture: Picture, window: str, bar_mm: int, units: float) -> _Frame:
    """``units``: how many units of the drawing a pixel takes."""
    rows, columns = picture.grey.shape
    return _Frame(
        name=picture.plane.name,
        window=window,
        url="data:image/png;base64," + base64.b64encode(picture.png()).decode(),
        width=round(columns * units),
        height=round(rows * units),
        letters=picture.plane.letters,
        bar=round(bar_mm / picture.pixel_mm * units, 1),
        bar_mm=bar_mm,
    )
