"""Crops that clients send: what is taken, what is refused, and that answers stand under their right names."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carina.models.card import Card, save_model
from carina.pipeline import Detector
from carina.serve.crops import CropClassifier, Crops, parse_crops
from carina.serve.problems import ProblemError
from serve_samples import CROP_ZYX, write_weights
from small_models import sure_nodule_net

RNG = np.random.default_rng(0)
HU = RNG.integers(-1000, 400, (3, *CROP_ZYX)).astype(np.int16)
SHAPE = ",".join(map(str, HU.shape))


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def parse(body: bytes, most: int = 8, **query: str) -> Crops:
    return parse_crops(body, query, CROP_ZYX, most)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> CropClassifier:
    return CropClassifier(Detector.load(write_weights(tmp_path_factory.mktemp("weights")), device="cpu"))


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_raw_and_npy_are_the_same(dtype):
    array = HU.astype(dtype)
    raw = parse(array.tobytes(), dtype=dtype, shape=SHAPE)
    assert np.array_equal(raw.hu, HU)
    assert np.array_equal(parse(npy(array)).hu, HU)


def test_one_crop_needs_no_count():
    assert parse(HU[0].tobytes(), dtype="int16", shape=SHAPE.partition(",")[2]).hu.shape == (1, *CROP_ZYX)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({}, "must say dtype and shape"),
        ({"dtype": "float64", "shape": SHAPE}, "must say dtype and shape"),
        ({"dtype": "int16"}, "must say dtype and shape"),
        ({"dtype": "int16", "shape": "3,16,16,15"}, "crops of this network are"),
        ({"dtype": "int16", "shape": "-3,16,16,16"}, "whole numbers"),
        ({"dtype": "int16", "shape": "3;16"}, "whole numbers"),
        ({"dtype": "int16", "shape": "²,16,16,16"}, "whole numbers"),
        ({"dtype": "int16", "shape": "2,16,16,16"}, "bytes of voxels"),
        ({"dtype": "float32", "shape": SHAPE}, "bytes of voxels"),
        ({"dtype": "int16", "shape": "0,16,16,16"}, "0 crops"),
        ({"dtype": "int16", "shape": "999999999,16,16,16"}, "999999999 crops"),
        ({"dtype": "int16", "shape": SHAPE, "diameter_mm": "1,2"}, "2 values of diameter_mm for 3"),
        ({"dtype": "int16", "shape": SHAPE, "diameter_mm": "1,2,x"}, "must be numbers"),
        ({"dtype": "int16", "shape": SHAPE, "diameter_mm": "1,2,nan"}, "must lie between"),
        ({"dtype": "int16", "shape": SHAPE, "diameter_mm": "1,2,-3"}, "must lie between"),
        ({"dtype": "int16", "shape": SHAPE, "segmentation_score": "1,1,1.1"}, "must lie between"),
    ],
)
def test_claims_that_do_not_hold_are_refused(query, message):
    with pytest.raises(ProblemError, match=message):
        parse(HU.tobytes(), **query)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_no_numbers_are_refused(bad):
    array = HU.astype(np.float32)
    array[1, 2, 3, 4] = bad
    with pytest.raises(ProblemError, match="NaN or infinite"):
        parse(npy(array))


@pytest.mark.parametrize(
    "array",
    [HU.astype(np.float64), np.asfortranarray(HU), HU.astype(">i2"), HU[0, 0], HU[:, :, :, :5], HU[:0]],
    ids=["float64", "fortran", "big-endian", "2-D", "shape", "none"],
)
def test_arrays_of_another_kind_are_refused(array):
    with pytest.raises(ProblemError):
        parse(npy(array))


def test_objects_are_never_unpickled():
    out = io.BytesIO()
    np.save(out, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ProblemError, match="send little-endian"):
        parse(out.getvalue())


@given(st.binary(max_size=200))
def test_no_bytes_break_the_npy_reader(tail):
    with pytest.raises(ProblemError):
        parse(b"\x93NUMPY" + tail)


def test_a_header_that_claims_gigabytes_costs_nothing():
    head = b"{'descr': '<i2', 'fortran_order': False, 'shape': (60000, 16, 16, 16), }"
    with pytest.raises(ProblemError, match="60000 crops"):
        parse(b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head)


def test_malignancy_is_null_without_a_diameter(classifier):
    crops = Crops(HU.astype(np.float32), (None, 8.0, 20.0), (None, None, 0.9))
    second = classifier.predict(crops.hu)
    answers = classifier.answer(crops, list(second))["answers"]
    assert answers[0]["p_malignant"] is None
    assert answers[1]["p_malignant"] < answers[2]["p_malignant"]


def test_the_rule_does_not_answer_for_a_network_that_rates(tmp_path):
    folder = write_weights(tmp_path)
    save_model(
        folder / "malignancy",
        sure_nodule_net(0.25),
        Card("rater", "malignancy", {"kind": "nodule", "first_filters": 1}),
    )
    classifier = CropClassifier(Detector.load(folder, device="cpu"))
    crops = Crops(HU.astype(np.float32), (8.0,) * 3, (None,) * 3)
    answer = classifier.answer(crops, list(classifier.predict(crops.hu)))
    assert [one["p_malignant"] for one in answer["answers"]] == [None] * 3
    assert "a network rates" in answer["model"]["malignancy"]


def test_both_stages_are_joined_as_in_the_pipeline(classifier, tmp_path):
    detector = Detector.load(write_weights(tmp_path), device="cpu")
    crops = Crops(HU.astype(np.float32), (None,) * 3, (None, 0.2, 0.9))
    second = classifier.predict(crops.hu)
    answers = classifier.answer(crops, list(second))["answers"]
    assert [answer["p_nodule_basis"] for answer in answers] == ["second stage alone", "both stages", "both stages"]
    assert answers[0]["p_nodule"] == second[0]
    expected = detector.classifier.card.calibration.probability(np.array([0.2, 0.9]), second[1:])
    assert [answer["p_nodule"] for answer in answers[1:]] == pytest.approx(expected.tolist())


def test_the_batch_does_not_change_the_answer(classifier):
    hu = HU.astype(np.float32)
    alone = [classifier.predict(crop[None])[0] for crop in hu]
    assert classifier.predict(hu) == pytest.approx(alone, abs=1e-6)
