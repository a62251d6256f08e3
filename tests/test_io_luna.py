"""M22, M25-M27: the LUNA16 layout: scans, tables, identity."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carina.errors import InputError
from carina.io import LunaCohort
from carina.io.luna import (
    Annotation,
    Candidate,
    CandidateRecord,
    ScanRow,
    nodule_at,
    read_annotations,
    read_candidates,
    read_malignancy,
    read_scans,
    write_annotations,
    write_candidates,
    write_scans,
)
from carina.io.uid import check_uid, is_uid

UID = "1.3.6.1.4.1.14519.5.2.1"
HEAD = "seriesuid,coordX,coordY,coordZ"
NUMBER = st.floats(-1000, 1000).map(lambda x: round(x, 6))
CENTER = st.tuples(NUMBER, NUMBER, NUMBER)


@given(st.lists(st.tuples(CENTER, st.floats(3, 30).map(lambda x: round(x, 4)), st.booleans())))
def test_annotations_read_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("t") / "annotations.csv"
    written = [
        Annotation(UID, center, diameter, 12.5 if ours else None, "part-solid" if ours else None, 3 if ours else None)
        for center, diameter, ours in rows
    ]
    write_annotations(path, written)
    assert read_annotations(path) == written
    assert path.read_text().startswith(f"{HEAD},diameter_mm,volume_mm3,type,label\n")


@given(st.lists(st.tuples(CENTER, st.booleans())))
def test_candidates_read_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("t") / "candidates.csv"
    written = [Candidate(UID, center, nodule) for center, nodule in rows]
    write_candidates(path, written)
    assert read_candidates(path) == written


def test_scan_rows_read_back(tmp_path):
    rows = [ScanRow(UID, "patient-1", 1.25, "phantom"), ScanRow(UID + ".2", "patient, two", 2.0, "lidc")]
    write_scans(tmp_path / "scans.csv", rows)
    assert read_scans(tmp_path / "scans.csv") == rows
    assert LunaCohort(tmp_path).scan_rows == rows


def test_columns_in_any_order_with_others_between(tmp_path):
    (tmp_path / "a.csv").write_text(f"extra, diameter_mm ,coordZ,coordY,coordX,seriesuid\nx,5,3,2,1, {UID} \n")
    assert read_annotations(tmp_path / "a.csv") == [Annotation(UID, (1.0, 2.0, 3.0), 5.0)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no column seriesuid"),
        ("seriesuid,coordX,coordY\n", "no column coordZ, diameter_mm"),
        (f"{HEAD},diameter_mm\n{UID},1,2,three,4\n", "line 2: coordZ 'three'"),
        (f"{HEAD},diameter_mm\n{UID},1,2,nan,4\n", "line 2: coordZ 'nan'"),
        (f"{HEAD},diameter_mm\n\n{UID},1,2,3\n", "line 3: 4 values for 5 columns"),
        (f"{HEAD},diameter_mm\nabc,1,2,3,4\n", "line 2: 'abc' is not a series UID"),
        (f"{HEAD},diameter_mm\n../../etc,1,2,3,4\n", "is not a series UID"),
    ],
)
def test_a_damaged_table_is_refused_by_line(tmp_path, text, reason):
    (tmp_path / "annotations.csv").write_text(text)
    with pytest.raises(InputError, match=reason):
        read_annotations(tmp_path / "annotations.csv")


def test_a_class_other_than_nodule_or_not_is_refused(tmp_path):
    (tmp_path / "candidates.csv").write_text(f"{HEAD},class\n{UID},1,2,3,2\n")
    with pytest.raises(InputError, match="class '2'"):
        LunaCohort(tmp_path).candidates  # noqa: B018 the table is read when the property is


def test_a_file_that_is_no_table(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00\x81" * 9)
    with pytest.raises(InputError, match="cannot be read as a table"):
        read_annotations(tmp_path / "a.csv")
    with pytest.raises(InputError, match="cannot be read as a table"):
        read_annotations(tmp_path / "missing.csv")


def test_malignancy_table(tmp_path):
    columns = f"{HEAD},diameter_mm,mal_bool,mal_details,len_mal_details"
    path = tmp_path / "annotations_with_malignancy.csv"
    path.write_text(f'{columns}\n{UID},1,2,3,5,True,"[4, 2, 4]",3\n{UID},1,2,3,5,False,[],0\n')
    first, second = LunaCohort(tmp_path).malignancy
    assert (first.malignant, first.ratings) == (True, (4, 2, 4))
    assert (second.malignant, second.ratings) == (False, ())
    path.write_text(f'{columns}\n{UID},1,2,3,5,maybe,"[4]",1\n')
    with pytest.raises(InputError, match="mal_bool"):
        read_malignancy(path)
    path.write_text(f'{columns}\n{UID},1,2,3,5,True,"[4, 12]",2\n')
    with pytest.raises(InputError, match="line 2: mal_details"):
        read_malignancy(path)


def test_malignancy_without_ratings_and_by_the_name_of_a_file(tmp_path):
    path = tmp_path / "table.csv"
    rows = "".join(f"case one,1,2,3,5,{outcome}\n" for outcome in ("TRUE", "1", "false", "0"))
    path.write_text(f"{HEAD},diameter_mm,mal_bool\n{rows}")
    read = read_malignancy(path, any_name=True)
    assert [(row.series_uid, row.malignant, row.ratings) for row in read] == [
        ("case one", malignant, ()) for malignant in (True, True, False, False)
    ]
    with pytest.raises(InputError, match="'case one' is not a series UID"):
        read_malignancy(path)


def test_scans_of_a_partial_download(tmp_path):
    for name in ("subset0/1.2.3.mhd", "subset7/1.2.1.mhd", "1.2.2.mhd", "subset7/1.2.1.raw"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert {uid: path.parent.name for uid, path in LunaCohort(tmp_path).scans.items()} == {
        "1.2.1": "subset7", "1.2.2": tmp_path.name, "1.2.3": "subset0",
    }  # fmt: skip


def test_a_scan_that_lies_there_twice_is_refused(tmp_path):
    for subset in ("subset0", "subset1"):
        (tmp_path / subset).mkdir()
        (tmp_path / subset / "1.2.3.mhd").touch()
    with pytest.raises(InputError, match="twice"):
        LunaCohort(tmp_path).scans  # noqa: B018 the folder is listed when the property is


def test_tables_that_are_not_there(tmp_path):
    cohort = LunaCohort(tmp_path)
    assert (cohort.malignancy, cohort.scan_rows, cohort.mask(UID)) == ([], [], None)
    with pytest.raises(InputError, match="no such table"):
        cohort.annotations  # noqa: B018 the table is read when the property is
    with pytest.raises(InputError, match="no such folder"):
        LunaCohort(tmp_path / "nowhere")


def test_a_candidate_belongs_to_the_nearest_nodule_within_its_radius():
    near, far = Annotation(UID, (0.0, 0.0, 0.0), 10.0), Annotation(UID, (6.0, 0.0, 0.0), 10.0)
    assert nodule_at((2.0, 0.0, 0.0), [far, near]) is near
    assert nodule_at((4.0, 0.0, 0.0), [near, far]) is far
    assert nodule_at((0.0, 6.0, 0.0), [near, far]) is None


def test_candidates_know_the_diameter_of_the_nodule_they_lie_in(tmp_path):
    other = UID + ".2"
    write_annotations(tmp_path / "annotations.csv", [Annotation(UID, (0.0, 0.0, 0.0), 10.0)])
    places = [(UID, (1.0, 1.0, 0.0), True), (UID, (30.0, 0.0, 0.0), False), (other, (0.0, 0.0, 0.0), True)]
    write_candidates(tmp_path / "candidates.csv", [Candidate(*place) for place in places])
    assert LunaCohort(tmp_path).records == [
        CandidateRecord(True, 10.0, UID, (1.0, 1.0, 0.0)),
        CandidateRecord(False, None, UID, (30.0, 0.0, 0.0)),
        CandidateRecord(True, None, other, (0.0, 0.0, 0.0)),  # the tables do not agree on every nodule
    ]


@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=8))
def test_digits_and_dots_are_a_uid(parts):
    assert is_uid(".".join(map(str, parts)))


@pytest.mark.parametrize(
    "text", ["", "1", "1.", ".1", "1..2", "1.a", "1.2 ", "1.2\n", "1." + "2" * 63, "\u0661.\u0662"]
)
def test_anything_else_is_not(text):
    with pytest.raises(InputError, match="not a series UID"):
        check_uid(text, "here")


@pytest.mark.data
def test_the_tables_of_luna16(data_dir):
    folder = data_dir / "annotations" / "luna16"
    assert len(read_annotations(folder / "annotations.csv")) == 1186
    ratings = read_malignancy(folder / "annotations_with_malignancy.csv")
    assert len(ratings) == 1182
    assert 0 < sum(row.malignant for row in ratings) < 1182
