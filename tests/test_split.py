"""M28: splits go by patient and stay put; the textbook's split has its published numbers."""

import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carina.data.split import every_nth, patient_fraction, split_by_patient, split_by_subset
from carina.data.store import Scan
from carina.errors import UsageError

AFFINE = ((0.0, 0.0, 1.0, 0.0), (0.0, 1.0, 0.0, 0.0), (1.5, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))


def scan(series: str, patient: str = "", subset: int | None = None) -> Scan:
    return Scan("k", series, patient or series, "", subset, 1.0, 3.0, (4, 4, 4), AFFINE, ())


PARTS = {"train": 0.7, "validation": 0.2, "test": 0.1}


def parts_of(patients: list[str], seed: int = 0) -> dict[str, str]:
    split = split_by_patient([scan(f"1.2.{i}", p) for i, p in enumerate(patients)], PARTS, seed)
    return {s.patient_id: part for part, scans in split.items() for s in scans}


@given(st.lists(st.text(min_size=1), unique=True, min_size=1, max_size=30), st.lists(st.text(min_size=1), max_size=30))
def test_patients_stay_where_they_are_when_others_are_added(patients, more):
    before, after = parts_of(patients), parts_of(more + patients)
    assert all(after[p] == part for p, part in before.items())


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 99)), max_size=40), st.integers(0, 5))
def test_every_scan_is_in_one_part_and_patients_are_never_shared(pairs, seed):
    scans = [scan(f"1.2.{i}", p) for i, (p, _) in enumerate(pairs)]
    split = split_by_patient(scans, PARTS, seed)
    assert sorted(s.series_uid for part in split.values() for s in part) == sorted(s.series_uid for s in scans)
    owners = [{s.patient_id for s in part} for part in split.values()]
    assert sum(map(len, owners)) == len(set().union(*owners))


def test_shares_hold_over_many_patients():
    split = split_by_patient([scan(f"1.2.{i}") for i in range(5000)], PARTS)
    assert [len(part) / 5000 for part in split.values()] == pytest.approx([0.7, 0.2, 0.1], abs=0.02)


def test_another_seed_gives_another_split():
    patients = [f"p{i}" for i in range(50)]
    assert parts_of(patients, 0) != parts_of(patients, 1)


def test_fraction_is_pinned_so_that_splits_survive_new_versions():
    assert patient_fraction("LIDC-IDRI-0001") == pytest.approx(0.339201476714)


def test_shares_below_one_leave_patients_out():
    split = split_by_patient([scan(f"1.2.{i}") for i in range(1000)], {"train": 0.3})
    assert len(split["train"]) == pytest.approx(300, abs=50)


def test_shares_above_one_are_refused():
    with pytest.raises(UsageError, match="add up to 1"):
        split_by_patient([], {"train": 0.9, "test": 0.2})


def test_subset_split_holds_one_of_ten_out():
    scans = [scan(f"1.2.{i}", subset=i % 10) for i in range(40)]
    training, validation = split_by_subset(scans, 3)
    assert {s.subset for s in validation} == {3}
    assert len(training) == 36
    assert all(s.subset != 3 for s in training)


def test_subset_split_needs_the_subsets():
    with pytest.raises(UsageError, match="no LUNA16 subset"):
        split_by_subset([scan("1.2.3")], 0)
    with pytest.raises(UsageError, match=r"subset4; there are \[1\]"):
        split_by_subset([scan("1.2.3", subset=1)], 4)


@given(st.lists(st.integers(), max_size=50), st.integers(2, 12))
def test_every_nth_parts_the_items(items, n):
    rest, held_out = every_nth(items, n)
    assert held_out == items[::n]
    assert sorted(rest + held_out) == sorted(items)


@pytest.mark.data
def test_textbook_split_of_luna16_has_89_scans_and_154_nodules_of_all_sizes(data_dir):
    folder = data_dir / "annotations" / "luna16"
    with (folder / "seriesuids.csv").open() as file:
        series = sorted(row[0] for row in csv.reader(file))
    with (folder / "annotations.csv").open() as file:
        diameters = [(row["seriesuid"], float(row["diameter_mm"])) for row in csv.DictReader(file)]
    rest, held_out = every_nth(series, 10)
    assert (len(rest), len(held_out)) == (799, 89)
    apart, others = (sorted(d for uid, d in diameters if uid in set(part)) for part in (held_out, rest))
    assert len(apart) == 154
    for share in (0.1, 0.25, 0.5, 0.75, 0.9):  # the sizes are spread as among the others
        assert apart[int(share * len(apart))] == pytest.approx(others[int(share * len(others))], rel=0.2)
