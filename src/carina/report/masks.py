"""``mask.nii.gz``: the segmented region of each finding, in the geometry of the input.

Must not know pictures or HTML.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Integer

from carina import io
from carina.errors import InputError
from carina.findings import Report
from carina.geometry import Geometry


def write_mask(labels: Integer[np.ndarray, "z y x"], report: Report, geometry: Geometry, path: Path) -> None:
    """Write the label map; a voxel's value is the ``id`` of its finding, 0 elsewhere.

    Args:
        labels: the map on the grid of the input.
        report: whose findings the values name.
        geometry: the grid of the input.
        path: where to; the ending says the format.

    Raises:
        InputError: the map has another shape than the input, or values that no finding has.
    """
    check_labels(labels, report, geometry)
    io.write_image(labels.astype(np.uint8), geometry, path)  # no id is larger, see MOST_FINDINGS


def check_labels(labels: Integer[np.ndarray, "z y x"], report: Report, geometry: Geometry) -> None:
    """Refuse a label map that does not belong to a report and its input.

    Raises:
        InputError: the map has another shape than the input, or values that no finding has.
    """
    if labels.shape != geometry.shape_zyx:
        raise InputError(f"mask of shape {labels.shape} for an input of shape {geometry.shape_zyx}")
    unknown = set(np.unique(labels[labels != 0]).tolist()) - {finding.id for finding in report.findings}
    if unknown:
        raise InputError(f"the mask holds values {sorted(unknown)}, which are no finding's id")
