"""How well masks agree: by voxel over a scan, and nodule by nodule.

Truth masks hold 0 for background, the number of a nodule, and 255 for voxels that nobody judges. Must not know how
masks were made.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Integer
from scipy import ndimage

from carina.errors import InputError
from carina.evaluate.froc import Interval, interval
from carina.io import read_image
from carina.io.luna import IGNORE
from carina.volume import FORMATS, ending_of, stem_of


@dataclass(frozen=True)
class Overlap:
    """Voxels on which prediction and truth agree and differ.

    Attributes:
        both: voxels in prediction and truth.
        only_prediction: voxels in the prediction alone.
        only_truth: voxels in the truth alone.
    """

    both: int
    only_prediction: int
    only_truth: int

    @property
    def dice(self) -> float:
        """2 both / (prediction + truth); 1 where both are empty."""
        total = 2 * self.both + self.only_prediction + self.only_truth
        return 2 * self.both / total if total else 1.0

    @property
    def precision(self) -> float:
        """Fraction of the prediction that is right; NaN where it is empty."""
        return self.both / (self.both + self.only_prediction) if self.both + self.only_prediction else float("nan")

    @property
    def recall(self) -> float:
        """Fraction of the truth that is found; NaN where it is empty."""
        return self.both / (self.both + self.only_truth) if self.both + self.only_truth else float("nan")


@dataclass(frozen=True)
class ScanOverlap:
    """One scan.

    Attributes:
        name: of the scan.
        scan: over all judged voxels.
        nodules: number of each nodule, and its overlap with the predicted regions that touch it.
    """

    name: str
    scan: Overlap
    nodules: tuple[tuple[int, Overlap], ...]


@dataclass(frozen=True)
class SegmentationScore:
    """A cohort of masks.

    Attributes:
        scans: every scan.
        pooled: all voxels of the cohort together.
        pooled_dice_interval: 95 % interval of the pooled Dice, over resamples of scans.
        mean_nodule_dice: mean Dice over all nodules, those that nothing touches with 0; NaN without nodules.
        nodule_dice_interval: 95 % interval of it, over resamples of scans.
        touched: nodules that a predicted region touches.
        n_nodules: all nodules.
    """

    scans: tuple[ScanOverlap, ...]
    pooled: Overlap
    pooled_dice_interval: Interval
    mean_nodule_dice: float
    nodule_dice_interval: Interval
    touched: int
    n_nodules: int


def overlap_of_scan(
    prediction: Integer[np.ndarray, "z y x"], truth: Integer[np.ndarray, "z y x"], name: str = ""
) -> ScanOverlap:
    """Compare two masks on one grid.

    A nodule is compared with the connected predicted regions (26 neighbours) that touch it, so that a false alarm
    elsewhere does not count against it; a region that touches two nodules counts for both.

    Args:
        prediction: what is not 0 is predicted.
        truth: 0, number of the nodule, or 255 for voxels to leave out.
        name: of the scan.
    """
    predicted = (prediction != 0) & (truth != IGNORE)
    nodule = np.where(truth == IGNORE, 0, truth)
    regions, _ = ndimage.label(predicted, structure=np.ones((3, 3, 3), bool))
    sizes = np.bincount(regions.ravel())
    nodules = []
    for label in np.unique(nodule[nodule > 0]).tolist():
        own = nodule == label
        touching = regions[own]
        both = int(np.count_nonzero(touching))
        region_voxels = int(sizes[np.unique(touching[touching > 0])].sum())
        nodules.append((label, Overlap(both, region_voxels - both, len(touching) - both)))
    both = int(np.count_nonzero(predicted & (nodule > 0)))
    scan = Overlap(both, int(np.count_nonzero(predicted)) - both, int(np.count_nonzero(nodule)) - both)
    return ScanOverlap(name, scan, tuple(nodules))


def summarise_overlap(scans: Sequence[ScanOverlap], *, bootstraps: int = 1000, seed: int = 0) -> SegmentationScore:
    """Pool scans, with intervals over resamples of whole scans.

    Raises:
        InputError: no scans.
    """
    if not scans:
        raise InputError("there are no masks to compare")
    voxels = np.array([[s.scan.both, s.scan.only_prediction, s.scan.only_truth] for s in scans])
    nodules = np.array([[sum(o.dice for _, o in s.nodules), len(s.nodules)] for s in scans], np.float64)
    draws = np.random.default_rng(seed).integers(len(scans), size=(bootstraps, len(scans)))
    drawn_voxels, drawn_nodules = voxels[draws].sum(axis=1), nodules[draws].sum(axis=1)
    with_nodules = drawn_nodules[:, 1] > 0
    pooled = Overlap(*voxels.sum(axis=0).tolist())
    n_nodules = int(nodules[:, 1].sum())
    return SegmentationScore(
        scans=tuple(scans),
        pooled=pooled,
        pooled_dice_interval=interval(np.array([Overlap(*row).dice for row in drawn_voxels.tolist()]), 0.95),
        mean_nodule_dice=float(nodules[:, 0].sum() / n_nodules) if n_nodules else float("nan"),
        nodule_dice_interval=interval(drawn_nodules[with_nodules, 0] / drawn_nodules[with_nodules, 1], 0.95),
        touched=sum(o.both > 0 for s in scans for _, o in s.nodules),
        n_nodules=n_nodules,
    )


def score_masks(predictions: Path, truths: Path) -> SegmentationScore:
    """Compare all masks of two folders.

    Args:
        predictions: ``NAME.nii.gz`` (or .mha, .mhd, .nrrd), or ``NAME/mask.nii.gz`` as ``carina detect`` writes it.
        truths: masks of the same names; scans that have no prediction are an error, not left out.

    Raises:
        InputError: a mask is missing or cannot be read, or two masks lie on different grids.
    """
    found, wanted = _masks(predictions), _masks(truths)
    if not wanted:
        raise InputError(f"{truths}: no masks ({', '.join(FORMATS)}) in this folder")
    missing = sorted(set(wanted) - set(found))
    if missing:
        raise InputError(f"{predictions}: no mask for {len(missing)} of {len(wanted)} scans, such as {missing[0]}")
    scans = []
    for name, path in sorted(wanted.items()):
        truth, truth_geometry = read_image(path)
        prediction, geometry = read_image(found[name])
        if not geometry.same_as(truth_geometry, tolerance_mm=0.1):
            raise InputError(
                f"{found[name]} and {path} lie on different grids ({geometry.shape_zyx} and "
                f"{truth_geometry.shape_zyx} voxels); resample one of them"
            )
        scans.append(overlap_of_scan(prediction, truth, name))
    return summarise_overlap(scans)


def _masks(folder: Path) -> dict[str, Path]:
    masks = {}
    for path in sorted(folder.glob("*")) + sorted(folder.glob("*/mask.*")):
        if path.is_file() and ending_of(path) is not None:
            name = stem_of(path)
            masks[path.parent.name if name == "mask" else name] = path
    return masks
