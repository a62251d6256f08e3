"""Draw the pipeline stage by stage: ``python docs/pipeline_pictures.py``.

Runs the shipped pipeline on a synthetic chest CT and writes ``docs/concepts/pipeline/*.png``, which
``docs/concepts/pipeline.md`` shows. With ``--scan PATH`` the same pictures of a real CT go, with a page of their own,
into ``docs/concepts/pipeline-real/``, which is never committed.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

from carina.ct.crops import cut_crops
from carina.ct.preprocess import PreparedScan, prepare_on, prepare_scan
from carina.data.phantom import make_phantom
from carina.findings import Candidate
from carina.hu import AIR, LUNG_WINDOW
from carina.io import read_ct
from carina.pipeline import Detector
from carina.pipeline.classify import classify
from carina.pipeline.detector import NEAR_LUNG_MM
from carina.pipeline.group import group
from carina.pipeline.segment import segment
from carina.volume import Volume

CONCEPTS = Path(__file__).parent / "concepts"
LOW, HIGH = LUNG_WINDOW
STAGES = {
    "read": "1. The CT as read, in the lung window",
    "lungs": "2. The lungs, and the box around them on the grid of the first network",
    "segment": "3. Probability of nodule for every voxel, from the U-Net",
    "group": "4. Connected regions near the lungs become candidates",
    "classify": "5. What the 3-D network sees of the first candidates, and what both stages say together",
    "findings": "6. The findings, outlined in the input's own geometry",
}


def draw(volume: Volume, folder: Path) -> None:
    """Run the pipeline on a volume and write one picture per stage."""
    folder.mkdir(parents=True, exist_ok=True)
    detector = Detector.load(device="cpu")
    assert detector.classifier is not None
    card = detector.segmenter.card
    scan = prepare_scan(volume, card.preprocessing)
    near = scan.lungs.on(scan.geometry, NEAR_LUNG_MM)
    probability = segment(scan.hu, detector.segmenter, inside=near, flips=card.flips)
    found, _ = group(
        probability,
        near,
        scan.geometry,
        threshold=card.threshold,
        lower_thresholds=card.lower_thresholds,
        min_volume_mm3=card.min_volume_mm3,
    )
    second = detector.classifier.card
    finer = prepare_on(volume, scan.lungs, second.preprocessing)
    centers = [c.center_lps for c in found]
    seen = classify(finer, centers, detector.classifier, flips=second.flips, again_above=second.again_above)
    p_nodule = second.calibration.probability(np.array([c.score for c in found]), seen)
    best = int(np.argmax(p_nodule)) if found else 0
    center = np.array(found[best].center_lps if found else scan.geometry.to_lps(np.array(scan.hu.shape) / 2))

    _plane(volume.hu, volume.geometry.to_zyx(center), volume.geometry.spacing_zyx_mm, folder / "read.png")
    z = round(float(scan.geometry.to_zyx(center)[0]))
    _overlay(scan, z, scan.lung[z] * 0.5, "winter", folder / "lungs.png")
    _overlay(scan, z, probability[z], "inferno", folder / "segment.png")
    _candidates(scan, z, found, p_nodule, folder / "group.png")
    _crops(finer, found, p_nodule, detector.classifier.card.preprocessing.crop_zyx, folder / "classify.png")
    detection = detector.detect(volume)
    index = round(float(volume.geometry.to_zyx(center)[0]))
    figure, axes = _slice(volume.hu[index])
    if (detection.mask[index] > 0).any():
        axes.contour(detection.mask[index] > 0, levels=[0.5], colors="#ff5a36", linewidths=1.2)
    for finding in detection.report.findings:
        if abs(finding.center_zyx[0] - index) * volume.geometry.spacing_zyx_mm[0] <= finding.diameter_mm / 2:
            _, y, x = finding.center_zyx
            axes.text(
                x, y - 14, f"{finding.id}: p {finding.p_nodule:.2f}, {finding.diameter_mm:.0f} mm", color="#ffd166"
            )
    _save(figure, folder / "findings.png")


def _slice(hu: np.ndarray) -> tuple[plt.Figure, plt.Axes]:
    height, width = hu.shape
    figure = plt.figure(figsize=(6, 6 * height / width), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(hu, cmap="gray", vmin=LOW, vmax=HIGH)
    axes.axis("off")
    return figure, axes


def _save(figure: plt.Figure, path: Path) -> None:
    figure.savefig(path, facecolor="black")
    plt.close(figure)


def _plane(hu: np.ndarray, index: np.ndarray, spacing: tuple[float, float, float], path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.4), dpi=100, facecolor="black")
    z, y = np.clip(np.rint(index[:2]).astype(int), 0, np.subtract(hu.shape[:2], 1))
    left.imshow(hu[z], cmap="gray", vmin=LOW, vmax=HIGH)
    right.imshow(hu[::-1, y], cmap="gray", vmin=LOW, vmax=HIGH, aspect=spacing[0] / spacing[2])
    for axes in (left, right):
        axes.axis("off")
    figure.tight_layout(pad=0.3)
    _save(figure, path)


def _overlay(scan: PreparedScan, z: int, values: np.ndarray, colours: str, path: Path) -> None:
    figure, axes = _slice(scan.hu[z])
    axes.imshow(values, cmap=colours, vmin=0, vmax=1, alpha=np.clip(values * 1.5, 0, 0.75))
    _save(figure, path)


def _candidates(scan: PreparedScan, z: int, found: list[Candidate], p_nodule: np.ndarray, path: Path) -> None:
    figure, axes = _slice(scan.hu[z])
    for candidate, p in zip(found, p_nodule, strict=True):
        (z0, y0, x0), (z1, y1, x1) = candidate.box_zyx
        if z0 <= z < z1:
            colour = "#ff5a36" if p >= 0.5 else "#8ecae6"
            axes.add_patch(mpl.patches.Rectangle((x0 - 2, y0 - 2), x1 - x0 + 4, y1 - y0 + 4, fill=False, ec=colour))
    axes.text(4, 12, f"{len(found)} candidates in the scan", color="white")
    _save(figure, path)


def _crops(
    scan: PreparedScan, found: list[Candidate], p_nodule: np.ndarray, crop_zyx: tuple[int, int, int], path: Path
) -> None:
    order = np.argsort(-p_nodule)[:8]
    figure, axes = plt.subplots(2, 4, figsize=(8, 4.4), dpi=100, facecolor="black")
    for axis in axes.flat:
        axis.axis("off")
    if len(order):
        chosen = np.rint(scan.geometry.to_zyx([found[i].center_lps for i in order])).astype(np.int64)
        for axis, crop, i in zip(axes.flat, cut_crops(scan.hu, chosen, crop_zyx, AIR), order, strict=False):
            axis.imshow(crop[crop_zyx[0] // 2], cmap="gray", vmin=LOW, vmax=HIGH)
            axis.set_title(f"p {p_nodule[i]:.2f}", color="white", fontsize=9)
    figure.tight_layout(pad=0.4)
    _save(figure, path)


def main() -> None:
    """Draw the phantom's pictures, or a real scan's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scan", type=Path, help="a real CT instead of the phantom; its pictures are not committed")
    arguments = parser.parse_args()
    if arguments.scan is None:
        draw(make_phantom(seed=4, nodules=4).volume, CONCEPTS / "pipeline")
        return
    folder = CONCEPTS / "pipeline-real"
    draw(read_ct(arguments.scan), folder)
    lines = ["# The pipeline on a real scan\n", *(f"{text}\n\n![]({name}.png)\n" for name, text in STAGES.items())]
    (folder / "index.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
