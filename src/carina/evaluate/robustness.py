"""Which findings stay when a CT is changed: nodules are inserted into it, then the whole is changed and read again.

Must not know files or how pages look.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from carina.ct.lungs import find_lungs
from carina.data.changes import CHANGES
from carina.data.known_lesions import Sphere, lesion_mask
from carina.data.shapes import ShapeAtlas
from carina.data.synthesize import draw_scan
from carina.findings import Finding
from carina.io.luna import Annotation
from carina.pipeline import Detector
from carina.volume import Source, Volume

AROUND_MM = 5.0
"""Inserted nodules keep this far away from the known ones."""


@dataclass(frozen=True)
class Row:
    """One change.

    Attributes:
        change: what was done, in words.
        found: nodules that a finding hits, of all sizes.
        found_from_6mm: those of 6 mm and more.
        stayed: nodules found in the unchanged CT that are found here too.
        false: findings that hit no nodule.
        known_rank: rank of the finding on the first known nodule, 0 where there is none.
        known_p: its probability.
        shift_mm: how far that finding lies from the nodule's centre.
    """

    change: str
    found: int
    found_from_6mm: int
    stayed: int
    false: int
    known_rank: int
    known_p: float
    shift_mm: float


@dataclass(frozen=True)
class Robustness:
    """All changes of one CT.

    Attributes:
        known: nodules that were in the CT.
        inserted: nodules inserted.
        from_6mm: nodules of 6 mm and more among both.
        rows: one per change; the first is the unchanged CT.
    """

    known: int
    inserted: int
    from_6mm: int
    rows: tuple[Row, ...]


def robustness(
    volume: Volume,
    known: Sequence[Annotation],
    detector: Detector,
    atlas: ShapeAtlas,
    *,
    nodules: int = 12,
    seed: int = 0,
    on_change: Callable[[], object] = lambda: None,
) -> Robustness:
    """Insert nodules into a CT, change it in every way of ``CHANGES``, and look each time.

    Args:
        volume: the CT.
        known: nodules that are in it; at least one.
        detector: what looks.
        atlas: shapes to insert.
        nodules: how many to try.
        seed: of the insertion.
        on_change: called after each change.
    """
    lesions = [Sphere(one.center_lps, one.diameter_mm / 2 + AROUND_MM) for one in known]
    keep_away = lesion_mask(volume.geometry, lesions, [])
    lung = find_lungs(volume).on(volume.geometry)
    rng = np.random.default_rng([seed, 17])
    drawn = draw_scan(volume, lung, keep_away, atlas, (nodules, nodules), (0, 0), rng)
    truth = [*known, *drawn.nodules]
    filled = Volume(drawn.canvas.hu, volume.geometry, Source(series_uid=volume.source.series_uid))
    centers = np.array([nodule.center_lps for nodule in truth])
    diameters = np.array([nodule.diameter_mm for nodule in truth])
    rows: list[Row] = []
    before: set[int] = set()
    for name, change in CHANGES.items():
        changed = change(filled)
        findings = detector.detect(changed.volume).report.findings
        hits = _hits(findings, changed.place(centers), diameters)
        found = {nodule for nodule, _ in hits}
        before = before if rows else found
        on_known = min((finding for nodule, finding in hits if nodule == 0), default=None)
        rows.append(
            Row(
                change=name,
                found=len(found),
                found_from_6mm=sum(bool(diameters[nodule] >= 6) for nodule in found),
                stayed=len(found & before),
                false=len(findings) - len({finding for _, finding in hits}),
                known_rank=0 if on_known is None else on_known + 1,
                known_p=float("nan") if on_known is None else findings[on_known].p_nodule,
                shift_mm=float("nan")
                if on_known is None
                else float(np.linalg.norm(findings[on_known].center_lps - changed.place(centers)[0])),
            )
        )
        on_change()
    return Robustness(len(known), len(drawn.nodules), int((diameters >= 6).sum()), tuple(rows))


def _hits(
    findings: Sequence[Finding], centers_lps: Float64[np.ndarray, "n 3"], diameters_mm: Float64[np.ndarray, " n"]
) -> list[tuple[int, int]]:
    """Pairs of a nodule and a finding that lies within its radius, as LUNA16 counts a hit."""
    return [
        (int(nodule), number)
        for number, finding in enumerate(findings)
        for nodule in np.flatnonzero(np.linalg.norm(centers_lps - finding.center_lps, axis=1) < diameters_mm / 2)
    ]
