"""Crops against padding and slicing."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from carina.ct.crops import cut_crops

sizes = st.tuples(*[st.integers(1, 9)] * 3)


@given(st.lists(st.tuples(*[st.integers(-15, 25)] * 3), max_size=5), sizes, sizes)
def test_crops_equal_padding_and_slicing(centers, size, shape):
    array = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    crops = cut_crops(array, np.array(centers, np.int64).reshape(-1, 3), size, fill=-1000)
    padded = np.pad(array, 40, constant_values=-1000)
    assert crops.shape == (len(centers), *size)
    assert crops.dtype == array.dtype
    for crop, center in zip(crops, centers, strict=True):
        first = [40 + c - s // 2 for c, s in zip(center, size, strict=True)]
        naive = padded[tuple(slice(f, f + s) for f, s in zip(first, size, strict=True))]
        np.testing.assert_array_equal(crop, naive)


def test_half_the_shape_is_the_centre():
    array = np.zeros((40, 60, 60), np.int16)
    array[7, 50, 3] = 99
    (crop,) = cut_crops(array, np.array([[7, 50, 3]]), (32, 48, 48), fill=-1000)
    assert crop[16, 24, 24] == 99


def test_memory_maps_are_cut_in_place(tmp_path):
    array = np.random.default_rng(0).integers(-1000, 400, (20, 30, 40)).astype(np.int16)
    array.tofile(tmp_path / "scan.raw")
    mapped = np.memmap(tmp_path / "scan.raw", np.int16, "r", shape=array.shape)
    centers = np.array([[3, 4, 5], [19, 29, 39]], np.int32)
    np.testing.assert_array_equal(cut_crops(mapped, centers, (8, 8, 8), 0), cut_crops(array, centers, (8, 8, 8), 0))
