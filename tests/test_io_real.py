"""Real scans: everything reads, and lies where others say it does.

Sources: LIDC-IDRI, CPTAC-LSCC, Lung-PET-CT-Dx, Chest Imaging Platform, TotalSegmentator.
"""

import json

import numpy as np
import pytest

from carina.io import list_series, read_ct, read_image, write_image

pytestmark = pytest.mark.data

LUNA_CENTER = (56.20840547, 86.34341278, -115.8675792)


@pytest.mark.parametrize(
    ("name", "slices", "step_mm"),
    [
        ("lidc-idri-0001", 133, 2.5),
        ("cptac-c3n-00247", 99, 3.0),
        ("lung-pet-ct-dx-a0001-sharp", 64, 5.0),
        ("lung-pet-ct-dx-a0001-soft", 64, 5.0),
        ("lung-pet-ct-dx-a0002-sharp", 30, 8.0),
        ("lung-pet-ct-dx-a0002-soft", 30, 8.0),
        ("cip-64/dicom", 79, 3.98734),
    ],
)
def test_every_series_reads(data_dir, name, slices, step_mm):
    ct = read_ct(data_dir / "ct" / name)
    assert ct.hu.shape[0] == slices
    assert ct.geometry.spacing_zyx_mm[0] == pytest.approx(step_mm, abs=1e-4)
    assert ct.hu.min() >= -1024
    assert np.median(ct.hu) < 0
    assert ct.geometry.axes[2, 0] > 0.99
    assert ct.source.warnings == ()


def test_geometry_of_lidc_0001_is_that_of_luna16(data_dir, lidc_0001):
    (truth,) = json.loads((data_dir / "annotations" / "lidc-idri-0001.json").read_text())
    ct = read_ct(lidc_0001)
    assert ct.source.series_uid == truth["series_instance_uid"]
    assert list(ct.geometry.shape_zyx) == truth["size"][::-1]
    assert ct.geometry.spacing_zyx_mm == pytest.approx(truth["spacing_mm"][::-1])
    assert ct.geometry.origin_lps == pytest.approx(truth["origin_mm"], abs=1e-4)


def test_the_nodule_of_lidc_0001_is_soft_tissue(lidc_0001):
    ct = read_ct(lidc_0001)
    z, y, x = np.rint(ct.geometry.to_zyx(LUNA_CENTER)).astype(int)
    assert -100 < ct.hu[z - 1 : z + 2, y - 3 : y + 4, x - 3 : x + 4].mean() < 150


def test_padding_around_the_view_of_lidc_0001_is_air(lidc_0001):
    assert (read_ct(lidc_0001).hu[:, 0, 0] == -1000).all()


@pytest.mark.parametrize("ending", [".mhd", ".nii.gz", ".nrrd"])
def test_lidc_0001_is_the_same_in_every_format(lidc_0001, tmp_path, ending):
    ct = read_ct(lidc_0001)
    write_image(ct.hu, ct.geometry, tmp_path / f"ct{ending}")
    copy = read_ct(tmp_path / f"ct{ending}")
    assert np.array_equal(copy.hu, ct.hu)
    assert np.allclose(copy.geometry.to_zyx(LUNA_CENTER), ct.geometry.to_zyx(LUNA_CENTER), atol=1e-3)


def test_cip_series_equals_its_nrrd(data_dir):
    dicom = read_ct(data_dir / "ct" / "cip-64" / "dicom")
    nrrd = read_ct(data_dir / "ct" / "cip-64" / "ct-64.nrrd")
    assert np.array_equal(dicom.hu, nrrd.hu)
    assert dicom.geometry.same_as(nrrd.geometry)


def test_label_map_of_cip_lies_on_its_ct(data_dir):
    labels, geometry = read_image(data_dir / "ct" / "cip-64" / "wholeLung-64.nrrd")
    ct = read_ct(data_dir / "ct" / "cip-64" / "ct-64.nrrd")
    assert geometry.same_as(ct.geometry)
    assert np.median(ct.hu[labels > 0]) < -700


def test_totalsegmentator_ct_reads_and_its_label_map_is_refused(data_dir):
    ct = read_ct(data_dir / "ct" / "totalsegmentator-small" / "example_ct_sm.nii.gz")
    assert 0.99 < np.linalg.norm(ct.geometry.axes[:, 0]) < 1.01
    verdicts = {i.path.rpartition("/")[2]: i.usable for i in list_series(data_dir / "ct" / "totalsegmentator-small")}
    assert verdicts == {"example_ct_sm.nii.gz": True, "example_seg.nii.gz": False, "example_seg_fast.nii.gz": False}


def test_the_even_kernel_is_chosen_of_two(data_dir):
    both = [data_dir / "ct" / f"lung-pet-ct-dx-a0002-{kernel}" for kernel in ("sharp", "soft")]
    chosen = [i for i in list_series(both) if i.chosen]
    assert [i.kernel for i in chosen] == ["B40f"]
    assert "even kernel B40f, the next one sharp kernel B70f" in chosen[0].reason
