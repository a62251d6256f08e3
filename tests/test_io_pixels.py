"""DICOM pixels to HU: rescale, signedness, padding, compression, and damage that must not pass."""

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carina.errors import InputError
from carina.io import read_ct
from carina.io.hu_values import to_hu
from io_samples import edit, edit_all, small_ct, small_series

SYNTAXES = ["explicit", "implicit", "deflated", "rle", "jpeg-lossless", "jpeg-ls", "jpeg-2000"]
COMPRESSED = ["rle", "jpeg-lossless", "jpeg-ls", "jpeg-2000"]


def restore(path, stored, **attributes):
    """Store other numbers in a slice, as unsigned or signed as their type is."""
    stored = np.ascontiguousarray(stored)
    dataset = pydicom.dcmread(path)
    dataset.PixelData = stored.tobytes()
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_every_transfer_syntax_gives_the_same_voxels(tmp_path, syntax):
    files = small_series(tmp_path / "a", shape=(16, 33, 47), transfer_syntax=syntax)
    assert pydicom.dcmread(files[0]).file_meta.TransferSyntaxUID.is_compressed == (syntax in COMPRESSED)
    assert np.array_equal(read_ct(tmp_path / "a").hu, small_ct(shape=(16, 33, 47)).hu)


def test_big_endian_series(tmp_path):
    for file in small_series(tmp_path / "a"):
        dataset = pydicom.dcmread(file)
        dataset.PixelData = dataset.pixel_array.astype(">i2").tobytes()
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRBigEndian
        turned = pydicom.Dataset(dataset)
        turned.file_meta = dataset.file_meta
        turned.save_as(file, enforce_file_format=True)
    assert np.array_equal(read_ct(tmp_path / "a").hu, small_ct().hu)


@pytest.mark.parametrize("implicit", [True, False])
def test_bare_data_set_without_file_meta_information(tmp_path, implicit):
    for file in small_series(tmp_path / "a"):
        dataset = pydicom.dcmread(file)
        del dataset.file_meta
        bare = pydicom.Dataset(dataset)
        bare.save_as(file, implicit_vr=implicit, little_endian=True)
        assert file.read_bytes()[128:132] != b"DICM"
    assert np.array_equal(read_ct(tmp_path / "a").hu, small_ct().hu)


@pytest.mark.parametrize(
    ("slope", "intercept", "kind"), [(1, -1024, "u2"), (2, -3000, "u2"), (0.5, -700.5, "i2"), (1, 0, "i2")]
)
def test_rescale_and_signedness(tmp_path, slope, intercept, kind):
    files = small_series(tmp_path / "a")
    stored = np.random.default_rng(0).integers(0, 3000, (16, 12, 10)).astype(f"<{kind}")
    for file, image in zip(files, stored, strict=True):
        restore(file, image, RescaleSlope=slope, RescaleIntercept=intercept)
    expected = np.rint(stored * float(slope) + intercept)
    if slope == 1 and intercept == 0:
        with pytest.raises(InputError, match="cannot be HU"):
            read_ct(tmp_path / "a")
        return
    assert np.array_equal(read_ct(tmp_path / "a").hu, np.where(expected < -1024, -1000, expected))


def test_slope_may_differ_between_slices(tmp_path):
    files = small_series(tmp_path / "a")
    restore(files[3], np.full((12, 10), 600, "<u2"), RescaleSlope=2, RescaleIntercept=-1000)
    assert (read_ct(tmp_path / "a").hu[3] == 200).all()


def test_twelve_bits_with_rubbish_in_the_unused_ones(tmp_path):
    files = small_series(tmp_path / "a")
    for file in files:
        image = np.full((12, 10), 924, "<u2") | 0xA000
        restore(file, image, BitsStored=12, HighBit=11, RescaleIntercept=-1024)
    assert (read_ct(tmp_path / "a").hu == -100).all()


@pytest.mark.parametrize("declared", [-2000, 63536])
def test_padding_becomes_air_however_its_sign_is_written(tmp_path, declared):
    """GE writes -2000 as the unsigned 63536 into files with signed pixels."""
    for file in small_series(tmp_path / "a"):
        image = np.full((12, 10), 500, "<i2")
        image[:2] = -2000
        restore(file, image, RescaleIntercept=-700)
        dataset = pydicom.dcmread(file)
        dataset.add_new(0x00280120, "SS" if declared < 0 else "US", declared)
        dataset.save_as(file)
    hu = read_ct(tmp_path / "a").hu
    assert (hu[:, :2] == -1000).all()
    assert (hu[:, 2:] == -200).all()


def test_padding_range_becomes_air(tmp_path):
    for file in small_series(tmp_path / "a"):
        image = np.full((12, 10), 500, "<u2")
        image[0], image[1], image[2] = 4000, 4050, 4095
        restore(file, image, RescaleIntercept=-1024)
        dataset = pydicom.dcmread(file)
        dataset.add_new("PixelPaddingValue", "US", 4095)
        dataset.add_new("PixelPaddingRangeLimit", "US", 4000)
        dataset.save_as(file)
    hu = read_ct(tmp_path / "a").hu
    assert (hu[:, :3] == -1000).all()
    assert (hu[:, 3:] == -524).all()


def test_values_below_the_scale_become_air(tmp_path):
    files = small_series(tmp_path / "a")
    image = np.full((12, 10), -3024, "<i2")
    image[0] = -1024
    restore(files[0], image)
    hu = read_ct(tmp_path / "a").hu
    assert (hu[0, 1:] == -1000).all()
    assert (hu[0, 0] == -1024).all()


@given(st.lists(st.floats(width=32), min_size=1, max_size=50))
@settings(max_examples=50)
def test_any_float_becomes_hu_or_air(values):
    array = np.array(values, np.float32)
    hu = to_hu(array)
    assert hu.min() >= -1024
    inside = np.isfinite(array) & (array >= -1024) & (array <= 32767)
    assert np.array_equal(hu[inside], np.rint(array[inside]))


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.int64, np.uint8, np.float64])
def test_other_types_are_held_within_int16(kind):
    top = np.array([0, 100, np.iinfo(kind).max if kind is not np.float64 else 1e30]).astype(kind)
    assert to_hu(top).tolist() == [0, 100, min(32767, int(top[2]))]


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("kept", [0.35, 0.6, 0.95])
def test_a_truncated_file_is_refused_by_name(tmp_path, syntax, kept, capfd):
    files = small_series(tmp_path / "a", shape=(17, 64, 64), transfer_syntax=syntax)
    content = files[8].read_bytes()
    files[8].write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(InputError, match=r"000009\.dcm"):
        read_ct(tmp_path / "a")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("syntax", COMPRESSED[1:])
def test_a_compressed_image_with_a_hole_is_refused(tmp_path, syntax, capfd):
    files = small_series(tmp_path / "a", shape=(16, 64, 64), transfer_syntax=syntax)
    dataset = pydicom.dcmread(files[8])
    (frame,) = pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1)
    middle = len(frame) // 2
    dataset.PixelData = pydicom.encaps.encapsulate([frame[:middle] + frame[middle + 300 :]])
    dataset.save_as(files[8])
    with pytest.raises(InputError, match=r"000009\.dcm.*cannot be decoded"):
        read_ct(tmp_path / "a")
    assert capfd.readouterr() == ("", "")


def test_pixel_data_missing(tmp_path):
    files = small_series(tmp_path / "a")
    edit(files[2], PixelData=None)
    with pytest.raises(InputError, match=r"000003\.dcm.*no pixel data"):
        read_ct(tmp_path / "a")


def test_unknown_transfer_syntax(tmp_path):
    files = small_series(tmp_path / "a")
    for file in files:
        file.write_bytes(file.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.9.9\0"))
    with pytest.raises(InputError, match="cannot be decoded"):
        read_ct(tmp_path / "a")


def test_sixteen_bit_lossy_remark(tmp_path):
    edit_all(small_series(tmp_path / "a"), LossyImageCompression="01")
    assert "the images were compressed with loss" in read_ct(tmp_path / "a").source.warnings
