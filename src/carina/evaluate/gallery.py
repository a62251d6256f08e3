"""A failure gallery: what a detector missed and what it called wrongly, as pictures. Must not know networks."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from carina.evaluate.match import Matches, Outcome
from carina.evaluate.page import Shot, render_gallery
from carina.evaluate.tables import Detections
from carina.findings import Report
from carina.hu import LUNG_WINDOW
from carina.io import read_ct
from carina.report.pictures import views
from carina.volume import Volume

FIELD_MM = 60.0
PIXELS = 180


@dataclass(frozen=True)
class Failure:
    """One place where the detector was wrong.

    Attributes:
        series_uid: the scan.
        center_lps: the place, mm.
        caption: what is wrong there.
    """

    series_uid: str
    center_lps: tuple[float, float, float]
    caption: str


def failures(matches: Matches, detections: Detections, most: int) -> tuple[list[Failure], list[Failure]]:
    """The largest missed nodules and the most probable false findings.

    Args:
        matches: ``detections`` held against the truth.
        detections: those that count, the same that were matched.
        most: at most so many of each.
    """
    nodules = matches.nodules
    missed = np.flatnonzero(matches.nodule_detection < 0)
    missed = missed[np.argsort(-nodules.diameter_mm[missed], kind="stable")][:most]
    false = np.flatnonzero(matches.outcome == Outcome.FALSE_POSITIVE)
    false = false[np.argsort(-detections.score[false], kind="stable")][:most]
    return (
        [
            _failure(
                nodules.series_uid[i],
                nodules.center_lps[i],
                f"{nodules.type[i]} {nodules.diameter_mm[i]:.1f} mm".strip(),
            )
            for i in missed
        ],
        [_failure(detections.series_uid[i], detections.center_lps[i], f"p {detections.score[i]:.2f}") for i in false],
    )


def draw_gallery(missed: Sequence[Failure], false: Sequence[Failure], reports: Sequence[Report], title: str) -> str:
    """A page with three planes through every place; it holds pictures of the scans themselves.

    Args:
        missed: nodules that no finding hits.
        false: findings that hit no nodule.
        reports: of the scans; each says where its CT lies.
        title: of the page.

    Raises:
        InputError: a CT that a report names cannot be read.
    """
    path_of = {report.input.series_uid or report.case_id: report.input.path for report in reports}

    @lru_cache(maxsize=1)
    def volume(path: str, uid: str) -> Volume:
        return read_ct(path, series_uid=uid if Path(path).is_dir() else None)

    def shots(places: Sequence[Failure]) -> list[Shot]:
        # Scan by scan, so that each is read once; shown in the order given.
        drawn = {}
        for place in sorted(places, key=lambda one: one.series_uid):
            ct = volume(path_of[place.series_uid], place.series_uid)
            seen = views(ct, place.center_lps, field_mm=FIELD_MM, pixels=PIXELS)
            at = ", ".join(f"{value:.0f}" for value in place.center_lps)
            caption = f"{place.caption} at ({at}) mm, series ...{place.series_uid[-8:]}"
            drawn[place] = Shot(caption, tuple(view.picture(LUNG_WINDOW).png() for view in seen))
        return [drawn[place] for place in places]

    notes = (
        f"Axial, coronal and sagittal, {FIELD_MM:g} mm wide, lung window. The worst come first.",
        "This page holds pictures of the scans: share it only where the scans may be shared.",
    )
    return render_gallery(title, notes, (("Missed nodules", shots(missed)), ("False findings", shots(false))))


def _failure(series_uid: str, center_lps: np.ndarray, caption: str) -> Failure:
    x, y, z = (float(value) for value in center_lps)
    return Failure(series_uid, (x, y, z), caption)
