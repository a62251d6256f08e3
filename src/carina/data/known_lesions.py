"""Known lesions of scans that serve as backgrounds, as masks of what to ignore.

Two sources are understood: a JSON file of spheres by folder name, and folders of Lung-PET-CT-Dx annotations (one
XML file per DICOM instance, named by its SOPInstanceUID, with in-plane boxes in pixels).

Must not know what is done with the masks.
"""

import json
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from carina.errors import InputError
from carina.geometry import Geometry, Vector3
from carina.volume import Volume

MARGIN_MM = 15.0
"""Boxes are drawn around the solid part of a tumour, and only on some slices. The haze and the streaks around it are no
examples of healthy lung: taught as such beside a tumour, they teach to deny the tumour."""


@dataclass(frozen=True)
class Sphere:
    """A lesion marked by its centre in mm (LPS) and a radius."""

    center_lps: Vector3
    radius_mm: float


@dataclass(frozen=True)
class PixelBox:
    """A box in one DICOM instance: first and last column and row, in pixels."""

    column: tuple[float, float]
    row: tuple[float, float]


@dataclass(frozen=True)
class KnownLesions:
    """All lesions that were given.

    Attributes:
        spheres: by name of the scan's folder.
        boxes: by SOPInstanceUID.
    """

    spheres: dict[str, tuple[Sphere, ...]]
    boxes: dict[str, tuple[PixelBox, ...]]


def read_known_lesions(paths: Sequence[Path]) -> KnownLesions:
    """Read JSON files of spheres and folders of XML boxes.

    A JSON file maps the name of a scan's folder to a list of ``{"center_lps": [x, y, z], "radius_mm": r}``; names
    that begin with ``_`` are comments. A folder is searched for ``*.xml`` at any depth.

    Raises:
        InputError: a path that is neither, or a file that cannot be understood.
    """
    spheres: dict[str, tuple[Sphere, ...]] = {}
    boxes: dict[str, tuple[PixelBox, ...]] = {}
    for path in paths:
        if path.is_dir():
            found = {file.stem: _read_boxes(file) for file in sorted(path.rglob("*.xml"))}
            if not found:
                raise InputError(f"{path}: no *.xml file with boxes in this folder")
            _add(boxes, found)
        else:
            _add(spheres, _read_spheres(path))
    return KnownLesions(spheres, boxes)


def _add(known: dict[str, tuple[Any, ...]], found: dict[str, tuple[Any, ...]]) -> None:
    """Several files may speak of one scan: all that they say holds."""
    for name, lesions in found.items():
        known[name] = known.get(name, ()) + lesions


def _read_spheres(path: Path) -> dict[str, tuple[Sphere, ...]]:
    try:
        table = json.loads(path.read_text())
        return {
            name: tuple(
                Sphere((float(x), float(y), float(z)), float(lesion["radius_mm"]))
                for lesion in lesions
                for x, y, z in [lesion["center_lps"]]
            )
            for name, lesions in table.items()
            if not name.startswith("_")
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: expected JSON of lesions with center_lps and radius_mm by folder name ({error!r})"
        ) from error


def _read_boxes(path: Path) -> tuple[PixelBox, ...]:
    try:
        boxes = []
        for box in ET.parse(path).getroot().iter("bndbox"):
            x0, y0, x1, y1 = (float(box.findtext(name, "")) for name in ("xmin", "ymin", "xmax", "ymax"))
            boxes.append(PixelBox((x0, x1), (y0, y1)))
        return tuple(boxes)
    except (OSError, ET.ParseError, ValueError) as error:
        raise InputError(f"{path}: expected boxes with xmin, ymin, xmax, ymax ({error})") from error


def boxes_lps(volume: Volume, lesions: KnownLesions) -> list[Float64[np.ndarray, "2 3"]]:
    """The boxes drawn on a DICOM volume's slices: two opposite corners of each in mm, one slice thick.

    A box holds for every series of the same frame of reference, so boxes of one kernel serve the other.
    """
    corners = []
    for z, instance in enumerate(volume.source.slices):
        for box in lesions.boxes.get(instance.sop_instance_uid, ()):
            low = (z - 0.5, box.row[0] - 0.5, box.column[0] - 0.5)
            high = (z + 0.5, box.row[1] + 0.5, box.column[1] + 0.5)
            corners.append(volume.geometry.to_lps(np.array([low, high])))
    return corners


def lesion_mask(
    geometry: Geometry,
    spheres: Sequence[Sphere],
    boxes: Sequence[Float64[np.ndarray, "2 3"]],
    margin_mm: float = MARGIN_MM,
) -> Bool[np.ndarray, "z y x"]:
    """Voxels of any known lesion, grown by a margin.

    Args:
        geometry: the grid of the mask.
        spheres: lesions marked by centre and radius; the radius is taken as it is.
        boxes: opposite corners in mm.
        margin_mm: how much a box is grown on all sides.
    """
    mask = np.zeros(geometry.shape_zyx, bool)
    spacing = np.array(geometry.spacing_zyx_mm)
    last = np.array(geometry.shape_zyx)
    for box in boxes:
        corners = geometry.to_zyx(box)
        low = np.ceil(corners.min(axis=0) - margin_mm / spacing - 1e-6).astype(int).clip(0)
        high = np.minimum(np.floor(corners.max(axis=0) + margin_mm / spacing + 1e-6).astype(int) + 1, last)
        mask[tuple(slice(a, max(a, b)) for a, b in zip(low, high, strict=True))] = True
    for sphere in spheres:
        center = geometry.to_zyx(sphere.center_lps)
        reach = sphere.radius_mm / spacing
        low = np.ceil(center - reach).astype(int).clip(0)
        high = np.minimum(np.floor(center + reach).astype(int) + 1, last)
        if (high <= low).any():
            continue
        z, y, x = (((np.arange(a, b) - c) * s) ** 2 for a, b, c, s in zip(low, high, center, spacing, strict=True))
        near = z[:, None, None] + y[:, None] + x <= sphere.radius_mm**2
        mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] |= near
    return mask
