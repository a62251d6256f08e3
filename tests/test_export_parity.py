"""Parity: what counts as equal, and that a different artefact is refused."""

import numpy as np
import pytest
import torch

from carina.errors import UsageError, WeightsError
from carina.export import TOLERANCE, export_model
from carina.export.fold_depth import FoldedNodule, scales_for_norms
from carina.export.manifest import read_manifest
from carina.export.parity import measure, random_batches
from tiny_networks import tiny


def run_of(module):
    return lambda batch: module(torch.from_numpy(batch)).numpy()


@pytest.mark.parametrize("name", ["segmentation", "nodule"])
def test_a_network_is_equal_to_itself(name):
    subject = tiny(name)
    parity = measure(subject, run_of(subject.module), {"random": random_batches(subject)})
    assert parity.max_probability == parity.float32_probability < 1e-6
    assert len(parity.shapes) == 2
    assert parity.shapes[0][0] != parity.shapes[1][0]


def test_a_probability_that_is_off_by_twice_the_tolerance_is_refused():
    subject = tiny("nodule")

    def shifted(batch):
        logits = run_of(subject.module)(batch).astype(np.float64)
        p = subject.probability(logits) + 2 * TOLERANCE
        return np.stack([np.log1p(-p), np.log(p)], 1)

    near_half = [np.zeros(subject.shape(1), np.float32)]
    subject.module.head.weight.zero_()
    subject.module.head.bias.zero_()
    with pytest.raises(WeightsError, match=r"differs from PyTorch's float64 by 2\.0.e-04"):
        measure(subject, shifted, {"zeros": near_half})


def test_an_answer_that_is_no_number_is_refused():
    subject = tiny("nodule")
    with pytest.raises(WeightsError, match="inf"):
        measure(subject, lambda batch: np.full((len(batch), 2), np.nan), {"random": random_batches(subject)})


def test_an_answer_of_another_shape_is_refused():
    subject = tiny("nodule")
    with pytest.raises(WeightsError, match=r"\(1, 3\)"):
        measure(subject, lambda batch: np.zeros((len(batch), 3)), {"random": random_batches(subject)})


def test_a_manifest_that_is_not_utf8_is_damaged(tmp_path):
    (tmp_path / "manifest.json").write_bytes(b'{"created": "\xff"}')
    with pytest.raises(WeightsError, match="is not a manifest"):
        read_manifest(tmp_path)


def test_nothing_is_kept_of_an_artefact_that_differs(tmp_path):
    subject = tiny("nodule")
    with pytest.raises(WeightsError):
        export_model(subject, tmp_path, ["traced"], tolerance=0.0)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_format_is_named_with_those_that_exist(tmp_path):
    with pytest.raises(UsageError, match=r"'caffe'.*onnx, traced"):
        export_model(tiny("nodule"), tmp_path, ["caffe"])


def test_the_folded_network_is_the_3d_network_in_float64():
    subject = tiny("nodule")
    module = subject.module.double()
    z, y, x = subject.input_shape[2:]
    crop = torch.randn(1, 1, z, y, x, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    difference = FoldedNodule(module, (z, y, x)).eval()(crop) - module(crop)
    assert difference.abs().max() < 1e-10


def test_the_folded_network_has_no_3d_layers():
    subject = tiny("nodule")
    z, y, x = subject.input_shape[2:]
    kinds = {type(part).__name__ for part in FoldedNodule(subject.module, (z, y, x)).modules()}
    assert not [kind for kind in kinds if kind.endswith("3d")]


def test_scales_stand_for_batch_norms_in_float64():
    subject = tiny("segmentation")
    module = subject.module.double()
    slices = subject.example(2).double()
    assert (scales_for_norms(module)(slices) - module(slices)).abs().max() < 1e-10
