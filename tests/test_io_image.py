"""M22: MetaImage, NIfTI and NRRD in and out; every format says the same as DICOM."""

import gzip
import os
import re
import struct
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st

from carina.errors import GeometryError, InputError
from carina.geometry import Geometry
from carina.io import list_series, read_ct, read_image, write_dicom, write_image
from io_samples import UID, small_ct, small_geometry, small_series

ENDINGS = [".mhd", ".mha", ".nii", ".nii.gz", ".nrrd"]
NUMBERS = st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: sum(a * a for a in q) > 0.01)


@settings(max_examples=10, deadline=None)
@given(
    quaternion=NUMBERS,
    spacing=st.tuples(st.floats(0.5, 8), st.floats(0.2, 3), st.floats(0.2, 3)),
    origin=st.tuples(*[st.floats(-500, 500)] * 3),
    index=st.tuples(st.floats(0, 15), st.floats(0, 11), st.floats(0, 9)),
)
def test_all_formats_give_the_same_voxels_at_the_same_place(tmp_path_factory, quaternion, spacing, origin, index):
    ct = small_ct(quaternion=quaternion, spacing=spacing, origin=origin)
    folder = tmp_path_factory.mktemp("same")
    write_dicom(ct, folder / "dicom")
    copies = [read_ct(folder / "dicom")]
    for ending in (".mhd", ".nii.gz", ".nrrd"):
        write_image(ct.hu, ct.geometry, folder / f"ct{ending}")
        copies.append(read_ct(folder / f"ct{ending}"))
    for copy in copies:
        assert np.array_equal(copy.hu, ct.hu)
        assert np.allclose(copy.geometry.to_lps(index), ct.geometry.to_lps(index), atol=0.01, rtol=0)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", ["bool", "uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_any_type_reads_back(tmp_path, ending, kind):
    array = np.random.default_rng(0).integers(0, 2 if kind == "bool" else 200, (3, 4, 5)).astype(kind)
    geometry = small_geometry((3, 4, 5))
    write_image(array, geometry, tmp_path / f"mask{ending}")
    back, place = read_image(tmp_path / f"mask{ending}")
    assert back.dtype == (np.uint8 if kind == "bool" else array.dtype)
    assert np.array_equal(back, array)
    assert place.same_as(geometry)


@pytest.mark.parametrize("ending", ENDINGS)
def test_mirrored_axes_keep_their_place(tmp_path, ending):
    mirrored = Geometry.from_axes((16, 12, 10), axes=np.eye(3)[:, ::-1] * [1, -1, -1], origin_lps=(5.0, 6.0, 7.0))
    one_mirrored = Geometry.from_axes((16, 12, 10), axes=np.eye(3)[:, ::-1] * [-1, 1, 1])
    for geometry in (mirrored, one_mirrored):
        write_image(small_ct().hu, geometry, tmp_path / f"ct{ending}")
        assert read_ct(tmp_path / f"ct{ending}").geometry.same_as(geometry)


def test_metaimage_may_be_uncompressed(tmp_path):
    write_image(small_ct().hu, small_ct().geometry, tmp_path / "a.mhd", compress=False)
    assert (tmp_path / "a.raw").stat().st_size == 2 * 16 * 12 * 10
    assert np.array_equal(read_ct(tmp_path / "a.mhd").hu, small_ct().hu)


def test_nothing_but_the_image_is_left_behind(tmp_path):
    write_image(small_ct().hu, small_ct().geometry, tmp_path / "new" / "a.mhd")
    assert sorted(f.name for f in (tmp_path / "new").iterdir()) == ["a.mhd", "a.zraw"]


def test_file_named_by_a_uid_names_the_series(tmp_path):
    write_image(small_ct().hu, small_ct().geometry, tmp_path / f"{UID}.mhd")
    source = read_ct(tmp_path / f"{UID}.mhd").source
    assert (source.series_uid, source.format) == (UID, "metaimage")


@pytest.mark.parametrize("name", ["ct-64.nrrd", "12.nii.gz", "patient 1.2.mha"])
def test_other_names_name_no_series(tmp_path, name):
    write_image(small_ct().hu, small_ct().geometry, tmp_path / name)
    assert read_ct(tmp_path / name).source.series_uid is None


def test_folder_with_one_image_is_read(tmp_path):
    write_image(small_ct().hu, small_ct().geometry, tmp_path / "ct.mhd")
    assert np.array_equal(read_ct(tmp_path).hu, small_ct().hu)
    assert [i.chosen for i in list_series(tmp_path)] == [True]


def test_folder_with_several_images_asks_for_one(tmp_path):
    for name in ("a.nii.gz", "b.mha"):
        write_image(small_ct().hu, small_ct().geometry, tmp_path / name)
    with pytest.raises(InputError, match=r"2 image files \(a\.nii\.gz, b\.mha\)"):
        read_ct(tmp_path)
    assert not any(i.chosen for i in list_series(tmp_path))


def test_luna_folder_is_read_by_series_uid(tmp_path):
    for seed, uid in enumerate(("1.2.3.4", "1.2.3.5")):
        write_image(small_ct(seed).hu, small_ct().geometry, tmp_path / "subset0" / f"{uid}.mhd")
    assert np.array_equal(read_ct(tmp_path, series_uid="1.2.3.5").hu, small_ct(1).hu)
    with pytest.raises(InputError, match=r"named by series 1\.2\.3\.6"):
        read_ct(tmp_path, series_uid="1.2.3.6")


def test_dicom_is_read_before_images_beside_it(tmp_path):
    small_series(tmp_path / "dicom")
    write_image(small_ct(1).hu, small_ct().geometry, tmp_path / "derived.nrrd")
    ct = read_ct(tmp_path)
    assert ct.source.format == "dicom"
    assert any("derived.nrrd" in warning for warning in ct.source.warnings)


def test_padding_of_luna16_becomes_air(tmp_path):
    hu = small_ct().hu.copy()
    hu[:, :3] = -3024
    write_image(hu, small_ct().geometry, tmp_path / "a.mhd")
    assert (read_ct(tmp_path / "a.mhd").hu[:, :3] == -1000).all()


def test_floats_are_rounded_and_lost_voxels_become_air(tmp_path):
    values = small_ct().hu + np.float32(0.4)
    values[0, 0, 0] = np.nan
    write_image(values, small_ct().geometry, tmp_path / "a.nii.gz")
    ct = read_ct(tmp_path / "a.nii.gz")
    assert np.array_equal(ct.hu[1:], small_ct().hu[1:])
    assert ct.hu[0, 0, 0] == -1000
    assert any("1 voxels were not finite" in w for w in ct.source.warnings)


@pytest.mark.parametrize("order", ["<", ">"])
def test_nifti_in_either_byte_order(tmp_path, order):
    values = small_ct().hu.astype(f"{order}f4")
    values[2, 3, 4] = np.inf
    header = bytearray(352)
    struct.pack_into(f"{order}i", header, 0, 348)
    struct.pack_into(f"{order}8h", header, 40, 3, 10, 12, 16, 1, 1, 1, 1)
    struct.pack_into(f"{order}2h", header, 70, 16, 32)
    struct.pack_into(f"{order}8f2f", header, 76, 1, 0.8, 0.7, 2.5, 1, 1, 1, 1, 352, 1)
    struct.pack_into(f"{order}b", header, 123, 2)  # millimetres
    struct.pack_into(f"{order}h", header, 254, 1)  # sform_code
    struct.pack_into(f"{order}12f", header, 280, -0.8, 0, 0, 100, 0, -0.7, 0, 120, 0, 0, 2.5, 30)
    header[344:348] = b"n+1\0"
    (tmp_path / "a.nii").write_bytes(bytes(header) + values.tobytes())
    ct = read_ct(tmp_path / "a.nii")
    assert ct.geometry.same_as(small_ct().geometry)
    assert ct.hu[2, 3, 4] == -1000
    assert np.array_equal(ct.hu[3:], small_ct().hu[3:])
    (tmp_path / "a.nii").write_bytes(bytes(header) + values.tobytes()[:-4])
    with pytest.raises(InputError, match="ends early"):
        read_ct(tmp_path / "a.nii")


@pytest.mark.parametrize(
    ("place", "layout", "value"),
    [(40, "<8h", (4, 10, 12, 16, 1, 1, 1, 1)), (72, "<h", (0,))],
    ids=["a fourth dimension of 1", "no bits per voxel"],
)
def test_nifti_headers_that_itk_reads_lose_no_voxel(tmp_path, place, layout, value):
    values = small_ct().hu.astype(np.float32)
    values[2, 3, 4] = np.nan
    write_image(values, small_ct().geometry, tmp_path / "a.nii")
    content = bytearray((tmp_path / "a.nii").read_bytes())
    struct.pack_into(layout, content, place, *value)
    (tmp_path / "a.nii").write_bytes(content)
    ct = read_ct(tmp_path / "a.nii")
    assert ct.hu[2, 3, 4] == -1000
    assert (ct.hu != small_ct().hu).sum() == 1


@pytest.mark.parametrize("offset", [np.nan, -1.0, 0.0, np.inf])
def test_nifti_with_an_offset_that_is_none_is_refused(tmp_path, offset):
    write_image(small_ct().hu, small_ct().geometry, tmp_path / "a.nii")
    content = bytearray((tmp_path / "a.nii").read_bytes())
    struct.pack_into("<f", content, 108, offset)
    (tmp_path / "a.nii").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.nii"):
        read_ct(tmp_path / "a.nii")


@pytest.mark.skipif(sys.platform == "darwin", reason="names of files are UTF-8 there")
def test_a_name_that_is_not_utf8_is_refused(tmp_path):
    write_image(small_ct().hu, small_ct().geometry, tmp_path / "a.nii")
    latin = os.fsdecode(bytes(tmp_path) + b"/M\xfcller.nii")
    (tmp_path / "a.nii").rename(latin)
    for read in (read_ct, read_image, list_series):
        with pytest.raises(InputError, match="not UTF-8"):
            read(Path(latin))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.zeros((16, 8, 8), np.uint8), "8-bit values cannot hold HU"),
        (np.full((16, 8, 8), 255, np.int16), "0 to|from 255 to 255, which cannot be HU.*mask"),
        (np.full((16, 8, 8), 2000, np.uint16), "before the rescale intercept"),
        (np.full((16, 8, 8), 0.5, np.float32), "cannot be HU"),
        (np.full((8, 8, 8), -900, np.int16), "only 8 slices"),
    ],
)
def test_values_that_cannot_be_a_ct_are_refused(tmp_path, values, reason):
    write_image(values, small_geometry(values.shape), tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match=reason):
        read_ct(tmp_path / "a.nii.gz")


def test_image_without_air_is_warned_of(tmp_path):
    write_image(np.full((16, 8, 8), -100, np.int16), small_geometry((16, 8, 8)), tmp_path / "a.mha")
    assert "neither lung nor air" in read_ct(tmp_path / "a.mha").source.warnings[0]


def write_itk(array, path, *, vector=False):
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array, isVector=vector), str(path))


def test_four_dimensions_are_refused_but_one_volume_of_them_is_read(tmp_path):
    series = np.stack([small_ct().hu, small_ct().hu])
    write_itk(series, tmp_path / "time.nii.gz")
    with pytest.raises(InputError, match="4-dimensional"):
        read_ct(tmp_path / "time.nii.gz")
    write_itk(series[:1], tmp_path / "one.nrrd")
    assert np.array_equal(read_ct(tmp_path / "one.nrrd").hu, small_ct().hu)


def test_colour_and_flat_images_are_refused(tmp_path):
    write_itk(np.zeros((16, 8, 8, 3), np.uint8), tmp_path / "rgb.mha", vector=True)
    with pytest.raises(InputError, match="3 values per voxel"):
        read_ct(tmp_path / "rgb.mha")
    write_itk(np.zeros((8, 8), np.int16), tmp_path / "flat.mha")
    with pytest.raises(InputError, match="2-dimensional"):
        read_ct(tmp_path / "flat.mha")


def test_shear_is_refused(tmp_path):
    write_image(small_ct().hu, small_ct().geometry, tmp_path / "a.nii")
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[252:254] = b"\0\0"  # qform_code
    content[280:296] = np.array([0.8, 0.0, 1.0, 0.0], "<f4").tobytes()  # srow_x leans along z
    (tmp_path / "a.nii").write_bytes(content)
    with pytest.raises(GeometryError, match="not perpendicular"):
        read_ct(tmp_path / "a.nii")


def test_nifti_without_a_position_is_warned_of(tmp_path):
    write_image(small_ct().hu, small_ct().geometry, tmp_path / "a.nii")
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[252:256] = bytes(4)  # qform_code, sform_code
    (tmp_path / "a.nii").write_bytes(content)
    assert "does not say where" in read_ct(tmp_path / "a.nii").source.warnings[0]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.99])
def test_truncated_image_is_refused_by_name(tmp_path, ending, kept, capfd):
    write_image(small_ct().hu, small_ct().geometry, tmp_path / f"a{ending}")
    body = tmp_path / ("a.zraw" if ending == ".mhd" else f"a{ending}")
    content = body.read_bytes()
    body.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(InputError, match=rf"a\{ending}"):
        read_ct(tmp_path / f"a{ending}")
    assert capfd.readouterr() == ("", "")


def test_truncation_before_compression_is_found_too(tmp_path):
    write_image(small_ct().hu, small_ct().geometry, tmp_path / "a.nii")
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress((tmp_path / "a.nii").read_bytes()[:-100]))
    with pytest.raises(InputError, match="ends early"):
        read_ct(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("ending", [*ENDINGS, ".nhdr"])
def test_text_with_an_image_ending_is_refused(tmp_path, ending, capfd):
    (tmp_path / f"a{ending}").write_text("This is no image.\n" * 40)
    with pytest.raises(InputError, match=rf"a\{ending}"):
        read_ct(tmp_path / f"a{ending}")
    assert capfd.readouterr() == ("", "")


def test_data_file_missing(tmp_path):
    write_image(small_ct().hu, small_ct().geometry, tmp_path / "a.mhd")
    (tmp_path / "a.zraw").unlink()
    with pytest.raises(InputError, match=r"a\.mhd"):
        read_ct(tmp_path / "a.mhd")


def test_unknown_ending_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match="cannot write this ending"):
        write_image(small_ct().hu, small_ct().geometry, tmp_path / "a.png")


def test_array_and_geometry_must_agree(tmp_path):
    with pytest.raises(InputError, match="does not fit"):
        write_image(small_ct().hu[:5], small_ct().geometry, tmp_path / "a.mha")


def test_reading_a_mask_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_image(tmp_path / "a.mha")
    (tmp_path / "a.png").touch()
    with pytest.raises(InputError, match="not an image file"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("ending", "line"),
    [(".mha", rb"ElementSpacing = [^\n]*\n"), (".mhd", rb"ElementSpacing = [^\n]*\n"), (".nrrd", rb"space d[^\n]*\n")],
)
def test_a_file_that_does_not_say_its_spacing_is_refused(tmp_path, ending, line):
    path = tmp_path / f"a{ending}"
    write_image(small_ct().hu, small_ct().geometry, path)
    content = path.read_bytes()
    without = re.sub(line, b"", content)
    assert len(without) < len(content)
    path.write_bytes(without)
    for read in (read_image, read_ct):
        with pytest.raises(GeometryError, match="does not say how large its voxels are"):
            read(path)


@pytest.mark.parametrize("ending", ENDINGS)
def test_voxels_of_one_millimetre_are_believed_where_the_file_says_so(tmp_path, ending):
    cube = Geometry.from_axes((16, 12, 10), spacing_zyx_mm=(1.0, 1.0, 1.0), origin_lps=(0, 0, 0))
    write_image(small_ct().hu, cube, tmp_path / f"a{ending}")
    assert read_ct(tmp_path / f"a{ending}").geometry.spacing_zyx_mm == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("size", [0.0, float("nan")])
def test_nifti_with_voxels_of_no_size_is_refused(tmp_path, size):
    write_image(small_ct().hu, small_ct().geometry, tmp_path / "a.nii.gz")
    content = bytearray(gzip.decompress((tmp_path / "a.nii.gz").read_bytes()))
    struct.pack_into("<f", content, 88, size)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content))
    with pytest.raises(GeometryError, match="does not say how large its voxels are"):
        read_ct(tmp_path / "a.nii.gz")


def test_a_header_full_of_line_ends_is_read_at_once(tmp_path):
    write_image(
        np.full((16, 64, 64), 0x0A0A, np.int16), small_geometry((16, 64, 64)), tmp_path / "a.mha", compress=False
    )
    content = re.sub(rb"ElementSpacing = [^\n]*\n", b"", (tmp_path / "a.mha").read_bytes())
    (tmp_path / "a.mha").write_bytes(content)
    began = time.process_time()
    assert not list_series(tmp_path / "a.mha")[0].usable
    assert time.process_time() - began < 5  # a minute, where every line end is tried anew
