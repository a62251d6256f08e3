"""What is known of a series before its voxels are read, and the choice of one among several.

Must not know how formats are read.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from carina.errors import InputError
from carina.geometry import Geometry
from carina.volume import Format

FEWEST_SLICES = 16
"""A stack of fewer slices shows too little of a chest to look for nodules."""

_CHEST_MM = 150.0
"""A series shorter than this shows only a part of the lungs."""


@dataclass(frozen=True)
class SeriesInfo:
    """One series of a folder, or one image file, and what Carina says about it.

    Attributes:
        path: file, or the folder of the series' first file.
        format: how it is stored.
        usable: whether ``read_ct`` would accept it, judged from the headers.
        verdict: why it is refused, or what it is.
        images: number of DICOM instances or, in other formats, slices.
        series_uid: SeriesInstanceUID, or the UID that a file is named by.
        study_uid: StudyInstanceUID.
        modality: Modality as written, "" where unknown.
        description: SeriesDescription.
        kernel: ConvolutionKernel.
        original: False where ImageType says DERIVED.
        shape_zyx: number of voxels along each axis.
        spacing_zyx_mm: spacing of the voxels.
        length_mm: extent of the stack along its first axis.
        axial: whether the first axis runs between feet and head.
        chosen: whether ``read_ct`` takes this one.
        reason: why it was chosen over the others; "" unless ``chosen``.
    """

    path: str
    format: Format
    usable: bool
    verdict: str
    images: int
    series_uid: str | None = None
    study_uid: str | None = None
    modality: str = ""
    description: str = ""
    kernel: str = ""
    original: bool = True
    shape_zyx: tuple[int, int, int] | None = None
    spacing_zyx_mm: tuple[float, float, float] | None = None
    length_mm: float = 0.0
    axial: bool = True
    chosen: bool = False
    reason: str = ""

    def with_geometry(self, geometry: Geometry) -> "SeriesInfo":
        """The same series, its shape and extent filled in."""
        spacing = geometry.spacing_zyx_mm
        return replace(
            self,
            shape_zyx=geometry.shape_zyx,
            spacing_zyx_mm=spacing,
            length_mm=spacing[0] * geometry.shape_zyx[0],
            axial=bool(abs(geometry.axes[2, 0]) > 0.7),
        )


def is_sharp(kernel: str) -> bool:
    """Whether a ConvolutionKernel enhances edges, judged by the names that the makers use.

    Siemens counts up (B31 soft, B70 sharp), Canon's chest and bone kernels begin at FC50, GE and Philips use
    words and letters. An unknown kernel counts as not sharp. Of several values the first is the kernel; iterative
    reconstruction adds its strength.
    """
    name = kernel.upper().partition("\\")[0]
    if numbered := re.match(r"(?:B|BL|BR|BV|HR|I|QR|FC)(\d{2})", name):
        return int(numbered[1]) >= 50
    return name in {"L", "D", "E", "YA", "YB", "YC", "YD"} or any(
        word in name for word in ("LUNG", "BONE", "EDGE", "SHARP")
    )


def choose(usable: Sequence[SeriesInfo]) -> tuple[SeriesInfo, str]:
    """The series to read, and why in words.

    In this order: an axial stack before reformatted ones, original before derived, one that covers a chest's
    height before a shorter one, thinner slices, an even kernel before a sharp one, more slices.

    Raises:
        InputError: there is none to choose from.
    """
    if not usable:
        raise InputError("no series to choose from")
    if len(usable) == 1:
        return usable[0], "the only CT series that can be read"
    ranked = sorted(usable, key=lambda info: ([key for key, _ in _merits(info)], info.series_uid or info.path))
    best, second = ranked[0], ranked[1]
    for (ours, word), (theirs, other) in zip(_merits(best), _merits(second), strict=True):
        if ours != theirs:
            return best, f"best of {len(usable)} CT series: {word}, the next one {other}"
    return best, f"first by UID of {len(usable)} CT series that are equally good"


def why_none(series: Sequence[SeriesInfo]) -> str:
    """Why ``carina.io.list_series`` chose none of these DICOM series, in words that say nothing of the patients."""
    usable = sum(one.usable for one in series)
    if usable:
        return f"{usable} CT series that cannot be told apart, of several patients"
    return "; ".join(one.verdict for one in series)


def _merits(info: SeriesInfo) -> list[tuple[float, str]]:
    """What counts, most important first; a smaller number is better."""
    spacing_mm = round(info.spacing_zyx_mm[0], 1) if info.spacing_zyx_mm else 99.0
    return [
        (not info.axial, "axial slices" if info.axial else "not axial"),
        (not info.original, "original images" if info.original else "derived images"),
        (info.length_mm < _CHEST_MM, f"{info.length_mm:.0f} mm long"),
        (spacing_mm, f"slices every {spacing_mm:g} mm"),
        (is_sharp(info.kernel), f"{'sharp' if is_sharp(info.kernel) else 'even'} kernel {info.kernel or '?'}"),
        (-info.images, f"{info.images} slices"),
    ]
