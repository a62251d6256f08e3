"""The same crops as MONAI's users get them: cached scans, its transforms, its loader; for ``benchmarks.training``.

Warm: ``CacheDataset`` keeps prepared scans in memory and cuts at random. More scans than memory holds:
``PersistentDataset`` keeps them on disk and loads a whole one for each crop.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from monai.data import CacheDataset, DataLoader, PersistentDataset
    from monai.transforms import (
        Compose,
        EnsureChannelFirstd,
        LoadImaged,
        RandAffine,
        RandFlip,
        RandGaussianNoise,
        RandSpatialCropd,
        ScaleIntensityRanged,
    )

Shape = tuple[int, int, int]


def _transforms(shape: Shape) -> Compose:
    return Compose(
        [
            LoadImaged(keys="image", reader="NumpyReader"),
            EnsureChannelFirstd(keys="image", channel_dim="no_channel"),
            ScaleIntensityRanged(keys="image", a_min=-1000, a_max=400, b_min=-1, b_max=1, clip=True),
            RandSpatialCropd(keys="image", roi_size=shape, random_size=False),
        ]
    )


def warm_loader(scans: Sequence[Path], samples: int, shape: Shape, batch: int) -> DataLoader:
    """Random crops from scans in memory."""
    items = [{"image": str(scans[k % len(scans)])} for k in range(samples)]
    # Without a copy of the whole cached scan for each crop, which is MONAI's default and forty times slower.
    dataset = CacheDataset(items, _transforms(shape), hash_as_key=True, progress=False, num_workers=1, copy_cache=False)
    return DataLoader(dataset, batch_size=batch, num_workers=0)


def disk_loader(scans: Sequence[Path], order: Sequence[int], shape: Shape, batch: int, cache: Path) -> DataLoader:
    """Random crops from scans that lie on disk, prepared."""
    items = [{"image": str(scans[k])} for k in order]
    return DataLoader(PersistentDataset(items, _transforms(shape), cache), batch_size=batch, num_workers=0)


def augmentation(shape: Shape) -> Compose:
    """One crop [1 z y x] flipped, shifted, scaled, turned about z and made noisy."""
    return Compose(
        [
            *(RandFlip(prob=0.5, spatial_axis=axis) for axis in range(3)),
            RandAffine(
                prob=1.0,
                rotate_range=(3.1416, 0.0, 0.0),
                translate_range=(2.0, 2.0, 2.0),
                scale_range=(0.2, 0.2, 0.2),
                spatial_size=shape,
                padding_mode="border",
            ),
            RandGaussianNoise(prob=1.0, std=25.0),
        ]
    )


def changed(transform: Compose, crops: Tensor) -> list[Tensor]:
    """Every crop changed on its own."""
    return [transform(crop) for crop in crops]
