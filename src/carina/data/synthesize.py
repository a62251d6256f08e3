"""Make a cohort of scans with inserted nodules from a few CTs without known truth, and from phantoms.

Every scan depends on the seed and its number alone: neither the number of processes nor the order matters.

Must not know the command line, networks or how a store is prepared from the cohort.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64

from carina.ct.lungs import find_lungs
from carina.data.blend import Canvas
from carina.data.cohort import CohortScan, append_rows, write_images
from carina.data.distractors import add_distractors
from carina.data.insert import insert_nodules
from carina.data.known_lesions import KnownLesions, Sphere, boxes_lps, lesion_mask, read_known_lesions
from carina.data.lidc_outlines import HELD_OUT_PATIENTS
from carina.data.phantom import make_phantom
from carina.data.pool import scan_pool
from carina.data.shapes import ShapeAtlas, Split, load_shapes
from carina.errors import InputError, UsageError
from carina.io.luna import Annotation, ScanRow
from carina.io.read import read_ct
from carina.io.uid import made_uid
from carina.volume import Source, Volume

log = logging.getLogger(__name__)

HELD_OUT_SERIES = {
    "1.3.6.1.4.1.14519.5.2.1.6279.6001.179049373636438705059720603192": "LIDC-IDRI-0001, a test scan",
}
"""Series that the finished detector is tested on; they are refused as backgrounds, as HELD_OUT_PATIENTS are."""


@dataclass(frozen=True)
class Background:
    """A CT to insert nodules into.

    Attributes:
        path: folder or file of the CT.
        name: recorded as the origin of the scans made from it.
        boxes: known lesions as opposite corners in mm.
        spheres: known lesions marked by centre and radius.
    """

    path: Path
    name: str
    boxes: tuple[tuple[tuple[float, ...], ...], ...]
    spheres: tuple[Sphere, ...]


@dataclass(frozen=True)
class Recipe:
    """What all scans of a cohort share.

    Attributes:
        output: folder of the cohort.
        seed: together with a scan's number, source of all randomness.
        nodules: fewest and most nodules tried in one scan.
        distractors: fewest and most distractors tried in one scan.
        split: which patients' shapes are used.
        atlas: file of shapes, None for the shipped ones.
    """

    output: Path
    seed: int
    nodules: tuple[int, int] = (12, 20)
    distractors: tuple[int, int] = (12, 24)
    split: Split = "train"
    atlas: Path | None = None


@dataclass(frozen=True)
class _Job:
    index: int
    recipe: Recipe
    background: Background | None


def synthesize(
    recipe: Recipe,
    backgrounds: Sequence[Path],
    ignore: Sequence[Path],
    *,
    scans: int,
    phantoms: int = 0,
    jobs: int = 1,
    on_scan: Callable[[], object] = lambda: None,
) -> list[CohortScan]:
    """Write a cohort.

    Args:
        recipe: what all scans share.
        backgrounds: CTs (folders or files); each is used for every ``len(backgrounds)``-th scan.
        ignore: files and folders of known lesions, see ``carina.data.known_lesions``.
        scans: how many scans to make from the backgrounds.
        phantoms: how many more to make from phantoms, each of its own seed.
        jobs: number of processes.
        on_scan: called after each scan.

    Returns:
        What was written, in the order of the tables.

    Raises:
        UsageError: nothing to do or nobody to do it, scans without a background, or an output folder that is not
            empty.
        InputError: a background that is held out for testing or cannot be read, or that has no lungs.
    """
    if scans + phantoms < 1 or scans < 0 or phantoms < 0:
        raise UsageError(f"nothing to make: {scans} scans and {phantoms} phantoms")
    if jobs < 1:
        raise UsageError(f"{jobs} processes make nothing: jobs count from 1")
    if scans and not backgrounds:
        raise UsageError(f"{scans} scans need at least one CT as a background")
    if recipe.output.is_dir() and any(recipe.output.iterdir()):
        raise UsageError(f"{recipe.output} is not empty; name a new folder")
    known = read_known_lesions(ignore)
    chosen = survey(backgrounds, known) if scans else []
    work = [_Job(i, recipe, chosen[i % len(chosen)]) for i in range(scans)]
    # Neighbours share a background, so that each process reads few of them.
    work.sort(key=lambda job: (job.index % max(len(chosen), 1), job.index))
    work += [_Job(scans + i, recipe, None) for i in range(phantoms)]
    recipe.output.mkdir(parents=True, exist_ok=True)
    made = []
    for scan in _run(work, jobs):
        # Here and not in the processes, so that the order of the rows does not depend on their number.
        append_rows(recipe.output, scan)
        made.append(scan)
        on_scan()
    return made


def _run(work: Sequence[_Job], jobs: int) -> Iterator[CohortScan]:
    if jobs == 1:
        yield from map(_make, work)
        return
    with scan_pool(min(jobs, len(work))) as pool:
        yield from pool.map(_make, work)


def survey(paths: Sequence[Path], known: KnownLesions) -> list[Background]:
    """Read every background once: refuse held-out ones, and share boxes between series of one patient.

    Raises:
        InputError: a background that is held out for testing or cannot be read.
    """
    boxes: dict[str, list[Float64[np.ndarray, "2 3"]]] = defaultdict(list)
    seen = []
    for path in paths:
        volume = read_ct(path)
        _refuse_held_out(path, volume.source)
        # A folder goes by its name, as in tables of lesions; a file by its series or its name without ending.
        name = path.resolve().name if path.is_dir() else volume.source.case_id
        frame = volume.source.frame_of_reference_uid or str(path)
        boxes[frame] += boxes_lps(volume, known)
        seen.append((path, name, frame))
    found = []
    for path, name, frame in seen:
        corners = tuple(tuple(tuple(float(v) for v in corner) for corner in box) for box in boxes[frame])
        spheres = known.spheres.get(name, ())
        if not corners and not spheres:
            log.warning("%s: no known lesions given; whatever it holds counts as background", path)
        found.append(Background(path, name, corners, spheres))
    return found


def _refuse_held_out(path: Path, source: Source) -> None:
    reason = HELD_OUT_SERIES.get(source.series_uid or "")
    if source.patient_id in HELD_OUT_PATIENTS:
        reason = f"{source.patient_id}, a test patient"
    if reason:
        raise InputError(f"{path} is held out for testing ({reason}) and cannot be a background; leave it out")


@lru_cache(maxsize=8)
def _load(background: Background) -> tuple[Volume, Bool[np.ndarray, "z y x"], Bool[np.ndarray, "z y x"]]:
    """A background with its lungs and what to ignore in it."""
    volume = read_ct(background.path)
    lung = find_lungs(volume).on(volume.geometry)
    mask = lesion_mask(volume.geometry, background.spheres, [np.array(box) for box in background.boxes])
    return volume, lung, mask


@lru_cache(maxsize=2)
def _shapes(path: Path | None, split: Split) -> ShapeAtlas:
    return load_shapes(path).split(split)


def _make(job: _Job) -> CohortScan:
    """Make one scan and write its image and mask."""
    recipe = job.recipe
    rng = np.random.default_rng([recipe.seed, job.index])
    atlas = _shapes(recipe.atlas, recipe.split)
    if job.background is None:
        number = int(np.random.SeedSequence([recipe.seed, job.index, 7]).generate_state(1)[0])
        phantom = make_phantom(number, nodules=0)
        volume, lung, patient, origin = phantom.volume, phantom.lungs, f"phantom-{number}", "phantom"
        background_uid = ""
        ignore = np.zeros(lung.shape, bool)
        lookalikes = volume.geometry.to_zyx(phantom.negatives)
    else:
        volume, lung, ignore = _load(job.background)
        patient = volume.source.patient_id or job.background.name
        origin, background_uid = job.background.name, volume.source.series_uid or ""
        lookalikes = np.zeros((0, 3))
    uid = made_uid("synthesize", recipe.seed, job.index, recipe.split, volume.source.case_id)
    drawn = draw_scan(volume, lung, ignore, atlas, recipe.nodules, recipe.distractors, rng, lookalikes)
    row = ScanRow(uid, patient, volume.geometry.spacing_zyx_mm[0], origin, background_uid)
    nodules = tuple(replace(nodule, series_uid=uid) for nodule in drawn.nodules)
    scan = CohortScan(row, nodules, drawn.negatives_lps)
    drawn_volume = Volume(drawn.canvas.hu, volume.geometry, Source(series_uid=uid))
    write_images(recipe.output, drawn_volume, drawn.canvas.label, scan)
    return scan


@dataclass(frozen=True, eq=False)
class Drawn:
    """A scan with everything drawn into it.

    Attributes:
        canvas: its HU and labels.
        nodules: what was inserted, without the name of a series.
        negatives_lps: centres in mm of things that look like nodules and are none.
    """

    canvas: Canvas
    nodules: tuple[Annotation, ...]
    negatives_lps: tuple[tuple[float, float, float], ...]


def draw_scan(
    volume: Volume,
    lung: Bool[np.ndarray, "z y x"],
    ignore: Bool[np.ndarray, "z y x"],
    atlas: ShapeAtlas,
    nodules: tuple[int, int],
    distractors: tuple[int, int],
    rng: np.random.Generator,
    lookalikes_zyx: Float64[np.ndarray, "n 3"] | None = None,
) -> Drawn:
    """Draw distractors, then nodules into one CT.

    Args:
        volume: the CT; it is not changed.
        lung: where to draw.
        ignore: what to keep away from and to label 255.
        atlas: shapes of nodules.
        nodules: fewest and most nodules to try.
        distractors: fewest and most distractors to try.
        rng: source of all randomness.
        lookalikes_zyx: places of the CT itself that are known to look like nodules and to be none.
    """
    canvas = Canvas(volume, lung, ignore, rng)
    marks = add_distractors(canvas, int(rng.integers(distractors[0], distractors[1] + 1)), rng)
    if lookalikes_zyx is not None:
        marks = np.concatenate([marks, lookalikes_zyx])
    inserted = insert_nodules(canvas, atlas, int(rng.integers(nodules[0], nodules[1] + 1)), rng)
    annotations = tuple(Annotation("", n.center_lps, n.diameter_mm, n.volume_mm3, n.type, n.label) for n in inserted)
    negatives = [
        tuple(float(v) for v in canvas.geometry.to_lps(mark)) for mark in marks if not _near_label(canvas, mark)
    ]
    return Drawn(canvas, annotations, tuple((x, y, z) for x, y, z in negatives))


def _near_label(canvas: Canvas, place_zyx: Float64[np.ndarray, "3"], reach_mm: float = 4.0) -> bool:
    """Whether anything labelled lies within a box around a place."""
    steps = np.ceil(reach_mm / canvas.spacing)
    low = np.rint(place_zyx - steps).astype(int).clip(0)
    high = np.rint(place_zyx + steps).astype(int) + 1
    return bool(canvas.label[tuple(slice(a, b) for a, b in zip(low, high, strict=True))].any())
