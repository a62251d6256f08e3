"""``Volume`` and ``Source``: valid once constructed."""

import numpy as np
import pytest

from carina.errors import InputError
from carina.geometry import Geometry
from carina.volume import SliceRef, Source, Volume


def test_array_and_geometry_must_agree() -> None:
    with pytest.raises(InputError, match="does not fit geometry"):
        Volume(np.zeros((3, 3, 3), np.int16), Geometry.from_axes((3, 3, 4)))


def test_slices_and_array_must_agree() -> None:
    with pytest.raises(InputError, match="1 slice references for 3 slices"):
        Volume(np.zeros((3, 3, 3), np.int16), Geometry.from_axes((3, 3, 3)), Source(slices=(SliceRef("1.2", 1, "a"),)))


def test_voxels_cannot_be_written() -> None:
    volume = Volume(np.zeros((3, 3, 3), np.int16), Geometry.from_axes((3, 3, 3)))
    with pytest.raises(ValueError, match="read-only"):
        volume.hu[0, 0, 0] = 1


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (Source(path="a/b/chest.nii.gz"), "chest"),
        (Source(path="a/1.2.3.mhd", series_uid="1.2.3"), "1.2.3"),
        (Source(path="a/v1.2.nrrd"), "v1.2"),
        (Source(path="a/SCAN.NII.GZ"), "SCAN"),
        (Source(path="scans/case 7"), "case 7"),
        (Source(), "case"),
        (Source(path="a", series_uid="../victim"), ".._victim"),
        (Source(path="a", series_uid="/tmp/a\\b\n"), "_tmp_a_b_"),
        (Source(path="a/...nii.gz"), "case"),
    ],
)
def test_case_id_names_the_output(source: Source, name: str) -> None:
    assert source.case_id == name
