"""What another program needs beside the networks to repeat ``carina detect``: one small JSON of constants.

Must not know formats of networks.
"""

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from carina.ct.lungs import find_lungs
from carina.ct.preprocess import Preprocessing
from carina.errors import UsageError
from carina.findings import MOST_FINDINGS
from carina.hu import AIR
from carina.io.image import write_image
from carina.models.card import Calibration, Card
from carina.models.malignancy import DiameterRule
from carina.pipeline.detector import MOST_CANDIDATES, NEAR_LUNG_MM
from carina.pipeline.flips import FLIPS
from carina.pipeline.group import SCORE_VOLUME_MM3
from carina.replacing import replacing
from carina.volume import Volume

PIPELINE = "pipeline.json"
LUNGS = "lungs.json"
REGION = "region-{}.mha"
"""The lungs on the grid of ``segmentation`` or of ``nodule``."""

STEPS = (
    (
        "lungs: find the lungs; for each network, the box around them plus margin_mm, on its spacing_zyx_mm along the "
        "patient's axes (z feet to head, y front to back, x right to left); resample trilinearly; fill_hu outside"
    ),
    "scale: x = (clip(HU, low, high) - low) * 2 / (high - low) - 1 with clip_hu = [low, high]",
    (
        "segment: for each slice the neighbouring slices, the first and last repeated beyond the ends; height, width "
        "padded at the end by repetition to a multiple of 2 ** (depth - 1); p = 1 / (1 + exp(-logit)); mean over the "
        "first segmentation_flips of flip_axes, the scan mirrored along those axes and the answer mirrored back"
    ),
    (
        "group: voxels with p > segmentation_threshold within near_lung_mm of the lungs; regions of 26-connected "
        "voxels of at least min_volume_mm3; then, for each of segmentation_lower_thresholds from the highest, such "
        "regions of p above it that hold no region found before; centre = mean of positions weighted by p; score = "
        "mean of its highest p over score_volume_mm3 (at least one voxel); at most most_candidates, best first"
    ),
    (
        "classify: crop_zyx voxels of the nodule network's grid around the rounded centre, voxel shape // 2 "
        "is the centre, fill_hu outside; p_crop = softmax(logits)[1]; where that is nodule_again_above or more, of the "
        "mean of the logits over the first nodule_flips of flip_axes, the crop mirrored along those axes"
    ),
    (
        "join: p_nodule = 1 / (1 + exp(-(intercept + segmentation * logit(score) + classification * logit(p_crop)))), "
        "both clipped to [1e-4, 1 - 1e-4]; keep p_nodule >= nodule_threshold"
    ),
    (
        "malignancy: p_malignant = 1 / (1 + exp(-(intercept + slope * ln(diameter_mm)))) (no ln where scale is "
        "linear), diameter of the sphere of the region's volume"
    ),
    "patient: maximum over the findings of p_nodule * p_malignant",
)


@dataclass(frozen=True)
class PipelineConstants:
    """Every constant of the pipeline, and its steps in words."""

    segmentation_preprocessing: Preprocessing
    nodule_preprocessing: Preprocessing
    fill_hu: int
    in_channels: int
    multiple: int
    segmentation_flips: int
    nodule_flips: int
    nodule_again_above: float
    flip_axes: tuple[tuple[int, ...], ...]
    segmentation_threshold: float
    segmentation_lower_thresholds: tuple[float, ...]
    min_volume_mm3: float
    near_lung_mm: float
    score_volume_mm3: float
    most_candidates: int
    most_findings: int
    calibration: Calibration
    nodule_threshold: float
    malignancy: DiameterRule
    steps: tuple[str, ...] = STEPS
    schema_version: str = "1.0"


def pipeline_constants(segmentation: Card, nodule: Card, malignancy: DiameterRule) -> PipelineConstants:
    """Gather the constants from the cards and from the pipeline itself.

    Raises:
        UsageError: the segmentation is not by the 2.5-D U-Net, which the steps describe.
    """
    if segmentation.spec["kind"] != "unet":
        raise UsageError(f"pipeline.json describes the 2.5-D U-Net, not {segmentation.spec['kind']!r}")
    return PipelineConstants(
        segmentation_preprocessing=segmentation.preprocessing,
        nodule_preprocessing=nodule.preprocessing,
        fill_hu=AIR,
        in_channels=int(segmentation.spec["in_channels"]),
        multiple=2 ** (int(segmentation.spec["depth"]) - 1),
        segmentation_flips=segmentation.flips,
        nodule_flips=nodule.flips,
        nodule_again_above=nodule.again_above,
        flip_axes=FLIPS,
        segmentation_threshold=segmentation.threshold,
        segmentation_lower_thresholds=tuple(sorted(segmentation.lower_thresholds, reverse=True)),
        min_volume_mm3=segmentation.min_volume_mm3,
        near_lung_mm=NEAR_LUNG_MM,
        score_volume_mm3=SCORE_VOLUME_MM3,
        most_candidates=MOST_CANDIDATES,
        most_findings=MOST_FINDINGS,
        calibration=nodule.calibration,
        nodule_threshold=nodule.threshold,
        malignancy=malignancy,
    )


def write_constants(folder: Path, constants: PipelineConstants) -> Path:
    """Write ``pipeline.json``; an existing one is replaced whole or not at all."""
    path = folder / PIPELINE
    _write_json(path, constants)
    return path


def write_regions(folder: Path, volume: Volume, constants: PipelineConstants) -> list[Path]:
    """Write the lungs of one CT on the grid of each network, for programs that find no lungs themselves.

    The geometry of ``region-segmentation.mha`` and ``region-nodule.mha`` is the grid. 2: lungs; 1: within
    ``near_lung_mm`` of them, where candidates may lie too; 0: elsewhere. ``lungs.json`` holds their volume, and
    the grid and the series UID of the CT, so that they are not taken for another one's.

    Raises:
        NoLungsError: no lungs in the CT.
    """
    lungs = find_lungs(volume)
    paths = []
    for name, wanted in (
        ("segmentation", constants.segmentation_preprocessing),
        ("nodule", constants.nodule_preprocessing),
    ):
        grid = lungs.box(wanted.spacing_zyx_mm, wanted.margin_mm)
        region = lungs.on(grid, NEAR_LUNG_MM).astype(np.uint8)
        region[lungs.on(grid)] = 2
        paths.append(folder / REGION.format(name))
        write_image(region, grid, paths[-1])
    paths.append(folder / LUNGS)
    scan = {
        "lung_litres": round(lungs.litres, 2),
        "shape_zyx": volume.geometry.shape_zyx,
        "affine": volume.geometry.affine.tolist(),
        "series_uid": volume.source.series_uid,
    }
    _write_json(paths[-1], scan)
    return paths


def _write_json(path: Path, content: object) -> None:
    with replacing(path) as draft:
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")
