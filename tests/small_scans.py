"""A prepared store of scans that are learned from in seconds."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from carina.ct.preprocess import Preprocessing
from carina.data.store import FORMAT, RECORD, Manifest, Nodule, Scan, Store, write_manifest
from carina.io.luna import IGNORE
from carina.tasks.marking import SegmentationSettings

SPACING = (1.5, 1.0, 1.0)
SHAPE = (40, 72, 72)
SMALL = SegmentationSettings(
    batch=2,
    crops_per_epoch=8,
    validation_crops=4,
    crop_zyx=(4, 32, 32),
    filters=4,
    validation_share=0.34,
    fit=replace(SegmentationSettings().fit, epochs=2),
)
"""Two short epochs on them."""


def write_scan(folder: Path, number: int, nodules: int = 2) -> Scan:
    """Noise with bright balls (nodules) and bright sticks (negatives)."""
    rng = np.random.default_rng(number)
    hu = rng.normal(-850, 30, SHAPE).astype(np.int16)
    label = np.zeros(SHAPE, np.uint8)
    index = np.indices(SHAPE).reshape(3, -1).T
    records = []
    for k in range(nodules):
        center = rng.uniform([8, 16, 16], np.array(SHAPE) - [8, 16, 16])
        diameter = rng.uniform(6, 12)
        inside = (np.linalg.norm((index - center) * SPACING, axis=1) < diameter / 2).reshape(SHAPE)
        hu[inside], label[inside] = 40, k + 1
        volume = float(np.pi / 6 * diameter**3)
        z, y, x = center
        records.append(Nodule(k + 1, (float(z), float(y), float(x)), float(diameter), volume))
    negatives = rng.integers([6, 16, 16], np.array(SHAPE) - [6, 16, 16], (6, 3))
    for z, y, x in negatives:
        hu[z, y - 1 : y + 2, x - 12 : x + 13] = np.where(label[z, y - 1 : y + 2, x - 12 : x + 13] > 0, 40, 0)
    label[:2] = IGNORE
    lung = np.zeros(SHAPE, np.uint8)
    lung[:, 4:-4, 4:-4] = 1
    affine = ((0.0, 0.0, 1.0, 0.0), (0.0, 1.0, 0.0, 0.0), (1.5, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
    key = f"scan{number}"
    scan = Scan(
        key,
        f"1.2.{number}",
        f"patient{number}",
        "made up",
        number % 10,
        1.5,
        5.0,
        SHAPE,
        affine,
        tuple(records),
        folder=str(folder / key),
    )
    (folder / key).mkdir(parents=True)
    points = np.argwhere(lung)[:: lung.size // 500].astype(np.int16)
    arrays = {"hu": hu, "label": label, "lung": lung, "negatives": negatives.astype(np.float32), "lung_points": points}
    for name, array in arrays.items():
        np.save(folder / key / f"{name}.npy", array)
    (folder / key / RECORD).write_bytes(scan.to_json())
    return scan


def write_store(folder: Path) -> Store:
    """Eight scans, of which all but the first hold two nodules."""
    scans = tuple(write_scan(folder, k, nodules=2 if k else 0) for k in range(8))
    write_manifest(folder, Manifest(FORMAT, Preprocessing(), scans, {}))
    return Store(folder)
