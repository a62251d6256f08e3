"""Real data as tensors: photos, folders, a CT, tables, hourly series and text."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from carina.data.pictures import channel_statistics, read_classes, read_photo, read_photos, split_pictures
from carina.data.scan import ct_tensor
from carina.data.series import read_hourly
from carina.data.table import one_hot, read_table
from carina.data.text import one_hot_characters, one_hot_words, read_text, vocabulary_of, words_of
from carina.errors import InputError
from carina.geometry import Geometry
from carina.io import read_ct, write_image

RED_BLUE = np.array([[[255, 0, 0], [0, 0, 255], [9, 9, 9]], [[1, 2, 3], [4, 5, 6], [7, 8, 9]]], np.uint8)


def write_pictures(folder: Path, count: int, size: int = 4, seed: int = 0) -> Path:
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    for index in range(count):
        Image.fromarray(generator.integers(0, 256, (size, size, 3), np.uint8)).save(folder / f"{index}.png")
    return folder


def test_a_photo_is_channels_rows_columns(tmp_path: Path) -> None:
    Image.fromarray(RED_BLUE).save(tmp_path / "p.png")
    photo = read_photo(tmp_path / "p.png")
    assert photo.dtype == torch.uint8
    assert photo.shape == (3, 2, 3)
    assert photo[:, 0, 1].tolist() == [0, 0, 255]


def test_a_grey_or_transparent_photo_has_three_channels(tmp_path: Path) -> None:
    Image.new("L", (3, 2), 7).save(tmp_path / "g.png")
    Image.new("RGBA", (3, 2), (1, 2, 3, 255)).save(tmp_path / "a.png")
    assert read_photo(tmp_path / "g.png").tolist() == [[[7] * 3] * 2] * 3
    assert read_photo(tmp_path / "a.png")[:, 0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_grey_of_16_bits_keeps_its_upper_eight(tmp_path: Path, ending: str) -> None:
    grey = np.array([[0, 255, 256], [0x7FFF, 0xABCD, 0xFFFF]], np.uint16)
    Image.fromarray(grey).save(tmp_path / f"g.{ending}")
    assert read_photo(tmp_path / f"g.{ending}").tolist() == [[[0, 0, 1], [0x7F, 0xAB, 0xFF]]] * 3


def test_pixels_of_32_bits_have_no_known_white_and_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((2, 3), np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(InputError, match=r"f\.tif cannot be read as a picture \(its pixels have 32 bits"):
        read_photo(tmp_path / "f.tif")


def test_a_photo_taken_upright_stands_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(RED_BLUE).save(tmp_path / "turned.png", exif=exif)
    assert read_photo(tmp_path / "turned.png").shape == (3, 3, 2)


@pytest.mark.parametrize("content", [None, b"", b"no picture at all"])
def test_what_is_no_picture_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.png cannot be read as a picture"):
        read_photo(tmp_path / "x.png")


def test_a_folder_of_photos_is_one_batch_in_order_of_names(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "photos", 3)
    (folder / "notes.txt").write_text("not a photo")
    batch, names = read_photos(folder)
    assert names == ["0.png", "1.png", "2.png"]
    assert torch.equal(batch[1], read_photo(folder / "1.png"))


def test_photos_of_different_sizes_need_a_common_one(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "photos", 1)
    Image.new("RGB", (6, 5)).save(folder / "z.png")
    with pytest.raises(InputError, match=r"z\.png is 5 x 6, 0\.png is 4 x 4"):
        read_photos(folder)
    assert read_photos(folder, (8, 10))[0].shape == (2, 3, 8, 10)


def test_a_folder_of_class_folders_names_the_classes(tmp_path: Path) -> None:
    write_pictures(tmp_path / "bird", 2)
    write_pictures(tmp_path / "airplane", 3, seed=1)
    pictures = read_classes(tmp_path)
    assert pictures.classes == ("airplane", "bird")
    assert pictures.labels.tolist() == [0, 0, 0, 1, 1]
    assert pictures.images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(pictures.images[3], read_photo(tmp_path / "bird" / "0.png"))


@pytest.mark.parametrize(("name", "says"), [("nothing", "no such folder"), ("empty", "holds no folders")])
def test_a_folder_without_classes_is_refused(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=says):
        read_classes(tmp_path / name)


def test_a_class_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bird").mkdir()
    with pytest.raises(InputError, match="holds no pictures"):
        read_classes(tmp_path)


@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_channel_statistics_are_those_of_numpy(seed: int, count: int) -> None:
    images = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, 3, 5, 4), np.uint8))
    mean, deviation = channel_statistics(images)
    scaled = images.numpy() / 255
    np.testing.assert_allclose(mean, scaled.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(deviation, scaled.std((0, 2, 3)), rtol=1e-6)


def test_a_split_holds_out_the_same_share_of_every_class(tmp_path: Path) -> None:
    write_pictures(tmp_path / "a", 20)
    write_pictures(tmp_path / "b", 10, seed=1)
    pictures = read_classes(tmp_path)
    kept, held = split_pictures(pictures, 0.1, seed=0)
    assert held.labels.tolist() == [0, 0, 1]
    together = torch.cat([kept.images, held.images]).flatten(1)
    assert len(together.unique(dim=0)) == len(pictures)


def test_a_ct_is_one_channel_of_hu(tmp_path: Path) -> None:
    hu = np.random.default_rng(0).integers(-1000, 1000, (20, 16, 18)).astype(np.int16)
    write_image(hu, Geometry.from_axes(hu.shape, spacing_zyx_mm=(2.0, 1.0, 1.0)), tmp_path / "ct.mhd")
    tensor = ct_tensor(tmp_path / "ct.mhd")
    assert tensor.dtype == torch.float32
    assert torch.equal(tensor, torch.from_numpy(hu).float()[None])


@pytest.mark.data
def test_a_real_ct_keeps_its_hu(data_dir: Path) -> None:
    folder = data_dir / "ct" / "cip-64"
    tensor = ct_tensor(folder / "ct-64.nrrd") if (folder / "ct-64.nrrd").exists() else ct_tensor(folder)
    assert tensor.ndim == 4
    assert np.array_equal(tensor[0].numpy(), read_ct(folder / "ct-64.nrrd").hu)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_is_rows_of_numbers_whatever_separates_them(tmp_path: Path, separator: str) -> None:
    rows = [["acid", "sugar", "quality"], ["7.4", "1.9", "5"], ["7.8", "2.6", "6"]]
    (tmp_path / "wine.csv").write_text("\n".join(separator.join(row) for row in rows))
    table = read_table(tmp_path / "wine.csv", target="quality")
    assert table.names == ("acid", "sugar")
    torch.testing.assert_close(table.values, torch.tensor([[7.4, 1.9], [7.8, 2.6]]))
    assert table.target is not None
    assert table.target.tolist() == [5, 6]


def test_a_separator_inside_quotes_separates_nothing(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('"acid, fixed";"sugar, left"\n7.4;1.9\n')
    assert read_table(tmp_path / "t.csv").names == ("acid, fixed", "sugar, left")


def test_a_table_may_have_one_column(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("grams\n1\n2\n")
    assert read_table(tmp_path / "t.csv").values.tolist() == [[1], [2]]


@pytest.mark.data
def test_a_real_table_keeps_its_numbers(data_dir: Path) -> None:
    table = read_table(data_dir / "annotations" / "luna16" / "annotations.csv", target="diameter_mm")
    assert table.names[:3] == ("coordX", "coordY", "coordZ")
    assert len(table.values) == 1186
    assert table.values[:, 3:].sum(1).eq(1).all()  # every row names one of the 601 series with nodules
    assert table.target is not None
    assert 3 < float(table.target.min()) < float(table.target.max()) < 33


def test_named_values_become_a_column_each(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("size,colour\n1,red\n2,white\n3,red\n")
    table = read_table(tmp_path / "t.csv")
    assert table.names == ("size", "colour=red", "colour=white")
    assert table.values.tolist() == [[1, 1, 0], [2, 0, 1], [3, 1, 0]]


def test_standardised_columns_have_mean_0_and_deviation_1(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,5\n2,5\n6,5\n")
    values = read_table(tmp_path / "t.csv").standardised()
    torch.testing.assert_close(values.mean(0), torch.zeros(2))
    torch.testing.assert_close(values.std(0, correction=0), torch.tensor([1.0, 0.0]))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a,b\n1,\n", "column 'b' has no value in row 2"),
        ("a,b\n1,\n,2\n", "column 'b' has no value in row 2"),
        ("a,b\n", "no rows"),
        ("", "cannot be read as a table"),
        ("a,q\n1,2\n", "no column 'quality'"),
        ("a,quality\n1,good\n", "expected numbers"),
    ],
)
def test_tables_with_holes_or_without_the_target_are_refused(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(InputError, match=says):
        read_table(tmp_path / "t.csv", target="quality", separator=",")


def test_one_hot_refuses_what_has_no_column() -> None:
    assert one_hot(torch.tensor([2, 0]), 3).tolist() == [[0, 0, 1], [1, 0, 0]]
    with pytest.raises(InputError, match="expected 0 to 2"):
        one_hot(torch.tensor([3]), 3)


def write_hours(path: Path, hours: list[int]) -> Path:
    rows = [f"2011-01-{1 + h // 24:02d},{h % 24},{h},{2 * h}" for h in hours]
    path.write_text("\n".join(["date,hour,count,twice", *rows]))
    return path


def test_hours_become_day_channel_hour(tmp_path: Path) -> None:
    days = read_hourly(write_hours(tmp_path / "bikes.csv", list(range(48))), time="date", hour="hour")
    assert days.values.shape == (2, 2, 24)
    assert days.channels == ("count", "twice")
    assert days.dates == ("2011-01-01", "2011-01-02")
    assert days.values[1, 0].tolist() == list(range(24, 48))
    assert torch.equal(days.values[:, 1], 2 * days.values[:, 0])


def test_rows_may_come_in_any_order_and_hours_may_be_missing(tmp_path: Path) -> None:
    hours = [h for h in range(47, 0, -1) if h != 30]
    path = write_hours(tmp_path / "bikes.csv", hours)
    filled = read_hourly(path, time="date", hour="hour").values[:, 0].flatten()
    assert filled[30] == 29
    assert filled[0] == 1
    holes = read_hourly(path, time="date", hour="hour", fill=False).values[:, 0].flatten()
    assert holes.isnan().nonzero()[:, 0].tolist() == [0, 30]


def test_one_column_may_hold_date_and_hour(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("at,v\n2020-02-29T00:00,1\n2020-02-29T23:00,2\n")
    days = read_hourly(tmp_path / "t.csv", time="at")
    assert days.values[0, 0].tolist() == [1.0] * 23 + [2.0]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("at,v\n2020-01-01 00:00,1\n2020-01-01 00:30,2\n", "two rows for 2020-01-01 00:00"),
        ("at,v\nyesterday,1\n", "does not hold times"),
        ("at,v\n2020-01-01,warm\n", "expected numbers"),
        ("time,v\n2020-01-01,1\n", "no column 'at'"),
        ("at\n2020-01-01\n", "holds times and nothing else"),
    ],
)
def test_what_is_no_hourly_series_is_refused(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(InputError, match=says):
        read_hourly(tmp_path / "t.csv", time="at")


@pytest.mark.parametrize("hour", ["24", "-1", "1.5", "noon"])
def test_an_hour_that_no_day_has_is_refused(tmp_path: Path, hour: str) -> None:
    (tmp_path / "t.csv").write_text(f"date,hour,v\n2020-01-01,{hour},1\n")
    with pytest.raises(InputError, match=r"column 'hour' holds .*, not 0 to 23"):
        read_hourly(tmp_path / "t.csv", time="date", hour="hour")


@given(st.text(alphabet=st.characters(min_codepoint=0, max_codepoint=127)))
@settings(max_examples=40, deadline=None)
def test_one_hot_characters_can_be_read_back(text: str) -> None:
    rows = one_hot_characters(text)
    assert rows.shape == (len(text), 128)
    assert "".join(chr(code) for code in rows.argmax(1).tolist()) == text


def test_characters_beyond_ascii_lose_accents_or_vanish() -> None:
    rows = one_hot_characters("Café “ok” 猫")
    assert "".join(chr(code) for code in rows.argmax(1).tolist()) == 'Cafe "ok" '


def test_words_are_counted_in_alphabetical_order() -> None:
    text = "Impossible, Mr. Bennet: it's impossible!"
    assert words_of(text) == ["impossible", "mr", "bennet", "it's", "impossible"]
    assert vocabulary_of(words_of(text)) == {"bennet": 0, "impossible": 1, "it's": 2, "mr": 3}
    assert one_hot_words(text).argmax(1).tolist() == [1, 3, 0, 2, 1]


def test_a_word_beyond_the_vocabulary_is_refused() -> None:
    with pytest.raises(InputError, match="'cat'"):
        one_hot_words("a cat", {"a": 0})


def test_text_is_utf_8_with_or_without_a_mark(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_bytes("\ufeffgrün".encode())
    assert read_text(tmp_path / "t.txt") == "grün"
    (tmp_path / "latin.txt").write_bytes("grün".encode("latin-1"))
    with pytest.raises(InputError, match="UTF-8"):
        read_text(tmp_path / "latin.txt")
