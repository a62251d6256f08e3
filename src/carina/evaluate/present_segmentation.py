"""The overlap of masks as a ``Summary``.

Must not know how results are computed or how pages are laid out.
"""

from carina.evaluate.figures import figure_text, range_text, share_plot
from carina.evaluate.page import Table
from carina.evaluate.segmentation import SegmentationScore
from carina.evaluate.summary import Summary


def present_segmentation(score: SegmentationScore, name: str) -> Summary:
    """Overlap by voxel and by nodule."""
    rows = (
        ("Dice, all voxels", f"{score.pooled.dice:.4f} ({range_text(score.pooled_dice_interval)})"),
        ("precision", figure_text(score.pooled.precision)),
        ("recall", figure_text(score.pooled.recall)),
        ("mean Dice per nodule", f"{figure_text(score.mean_nodule_dice)} ({range_text(score.nodule_dice_interval)})"),
        ("nodules touched", f"{score.touched} of {score.n_nodules}"),
    )
    scans = tuple(
        (
            s.name,
            f"{s.scan.dice:.4f}",
            figure_text(s.scan.precision),
            figure_text(s.scan.recall),
            " ".join(f"{o.dice:.3f}" for _, o in s.nodules) or "none",
        )
        for s in score.scans
    )
    dice = [overlap.dice for scan in score.scans for _, overlap in scan.nodules]
    return Summary(
        title=f"Segmentation: {name}",
        notes=(
            (
                f"{len(score.scans)} scans. A nodule is compared with the predicted regions that touch it; "
                "a nodule that none touches counts with Dice 0. Voxels marked 255 in the truth are left out."
            ),
            "Intervals: 95 % percentiles over resamples of the scans.",
        ),
        tables=(
            Table("", ("figure", "value"), rows),
            Table("By scan", ("scan", "Dice", "precision", "recall", "Dice of each nodule"), scans),
        ),
        plots=(share_plot("Nodules", "Dice of a nodule", name, dice),) if dice else (),
        data=score,
    )
