"""The CT experiments run from a prepared store to weights that load, and learn what is there to be learned."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from carina.ct.preprocess import Preprocessing
from carina.data.augment import AugmentSettings
from carina.data.store import FORMAT, IGNORE, RECORD, Manifest, Nodule, Scan, Store, write_manifest
from carina.errors import TrainingError, UsageError
from carina.learn import FitSettings, fit
from carina.models.build import build
from carina.models.card import load_model
from carina.tasks.runs import split_scans
from carina.tasks.segmentation import (
    SLICES,
    Segmentation,
    SegmentationSettings,
    segmentation_batches,
    train_segmentation,
    voxel_weights,
)

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


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("store")
    scans = tuple(write_scan(folder, k, nodules=2 if k else 0) for k in range(8))
    write_manifest(folder, Manifest(FORMAT, Preprocessing(), scans, {}))
    return Store(folder)


def test_segmentation_goes_from_a_store_to_weights_that_load(store: Store, tmp_path: Path) -> None:
    result, card = train_segmentation(store, tmp_path, SMALL)
    module, loaded = load_model(tmp_path / "model")
    assert loaded == card
    assert loaded.metrics == result.metrics
    assert module(torch.zeros(1, SLICES, 16, 16)).shape == (1, 1, 16, 16)
    training, _ = split_scans(store, SMALL)
    assert card.training.series_uids == tuple(sorted(scan.series_uid for scan in training))
    assert sum(source.scans for source in card.training.data) == len(training)
