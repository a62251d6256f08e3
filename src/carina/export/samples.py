"""Inputs cut from a CT, so that artefacts are compared on what they will see.

Must not know formats.
"""

import numpy as np
from jaxtyping import Int64

from carina.ct.crops import cut_crops
from carina.ct.preprocess import PreparedScan, Preprocessing, prepare_scan
from carina.export.parity import Batches
from carina.export.subject import Subject
from carina.hu import AIR, normalise
from carina.volume import Volume

CROPS = 6
"""Crops that are cut for the 3-D network."""

SLICES = 2
"""Slices that are cut for the U-Net, of the whole lung box."""


def samples(subject: Subject, volume: Volume) -> Batches:
    """One batch of inputs from a chest CT; none for networks that do not look at CTs.

    Crops lie evenly among the voxels of the lungs that are as dense as tissue: vessels, nodules, scars.

    Raises:
        NoLungsError: no lungs in the CT.
    """
    if subject.card.spec["kind"] not in ("unet", "nodule"):
        return []
    preprocessing = subject.card.preprocessing
    scan = prepare_scan(volume, preprocessing)
    if subject.card.spec["kind"] == "nodule":
        crops = cut_crops(scan.hu, dense_places(scan), preprocessing.crop_zyx, AIR)[:, None]
        return [normalise(crops.astype(np.float32), preprocessing.clip_hu)]
    return [slabs(scan, subject, preprocessing)]


def dense_places(scan: PreparedScan, count: int = CROPS) -> Int64[np.ndarray, "n 3"]:
    """Indices of dense voxels in the lungs, evenly among them."""
    dense = np.argwhere(scan.lung & (scan.hu > -500))
    return np.asarray(dense[np.linspace(0, len(dense) - 1, count).astype(int)], np.int64)


def slabs(scan: PreparedScan, subject: Subject, preprocessing: Preprocessing, count: int = SLICES) -> np.ndarray:
    """Neighbouring slices [count channels y x] of the lung box, cut to a size that the network takes."""
    channels, multiple = subject.input_shape[1], subject.multiple
    depth, height, width = scan.hu.shape
    middle = np.linspace(depth // 3, 2 * depth // 3, count).astype(int)
    near = np.clip(middle[:, None] + np.arange(channels) - channels // 2, 0, depth - 1)
    cut = scan.hu[near][..., : height // multiple * multiple, : width // multiple * multiple]
    return normalise(cut.astype(np.float32), preprocessing.clip_hu)
