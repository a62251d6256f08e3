"""Every format (M41, M42, M45): written, loaded, equal, quiet; the manifest says what the files are."""

import json
import logging
from importlib.util import find_spec

import pytest

from carina.errors import WeightsError
from carina.export import FORMATS, export_model
from carina.export.manifest import Manifest, read_manifest, write_manifest
from tiny_networks import tiny

FAST = ["onnx", "traced", "scripted", "exported", "openvino"]
# AOTInductor takes a compiler and a minute: test_cpp.py writes its packages, measures them and runs them.


def needs(name):
    missing = [package for package in FORMATS[name].needs if find_spec(package) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Both networks in every fast format, in one folder with a manifest."""
    for name in FAST:
        needs(name)
    folder = tmp_path_factory.mktemp("exported")
    entries = {name: export_model(tiny(name), folder, FAST) for name in ("segmentation", "nodule")}
    write_manifest(folder, Manifest("0", "2026-01-01T00:00:00+00:00", entries))
    return folder, entries


@pytest.mark.parametrize("network", ["segmentation", "nodule"])
@pytest.mark.parametrize("name", FAST)
def test_a_format_is_equal_to_pytorch(exported, network, name):
    _, entries = exported
    artefact = next(a for a in entries[network].artefacts if a.format == name)
    assert artefact.parity.max_probability <= 1e-6
    assert artefact.size_bytes > 1000


@pytest.mark.parametrize("name", FAST)
def test_a_loaded_file_takes_other_sizes_than_its_example(exported, name):
    folder, entries = exported
    subject = tiny("segmentation")
    artefact = next(a for a in entries["segmentation"].artefacts if a.format == name)
    file = next(f for f in artefact.files if not f.endswith(".bin"))
    slices = subject.example(5, (11, 7), seed=3).numpy()
    assert FORMATS[name].run(folder / file)(slices).shape == (5, 1, 22, 14)


def test_the_manifest_comes_back_as_it_was(exported):
    folder, entries = exported
    assert read_manifest(folder).networks == entries


def test_the_manifest_says_how_the_input_is_made(exported):
    folder, _ = exported
    entry = read_manifest(folder).networks["nodule"]
    assert entry.input_shape == (-1, 1, 16, 16, 32)
    assert "(clip(HU, -1000, 400) - (-1000)) * 0.00142857143 - 1" in entry.input_values
    assert entry.card.preprocessing.spacing_zyx_mm == (1.5, 1.0, 1.0)


def test_a_damaged_artefact_is_found(exported):
    folder, _ = exported
    file = folder / "nodule.onnx"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with pytest.raises(WeightsError, match=r"nodule\.onnx is damaged"):
        read_manifest(folder)
    file.write_bytes(whole)


def test_onnx_carries_its_card_and_no_traces_of_source(exported):
    import onnx

    folder, _ = exported
    model = onnx.load(folder / "nodule.onnx")
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(metadata["carina.card"])["spec"]["kind"] == "nodule"
    assert model.opset_import[0].version == 20
    assert b"site-packages" not in (folder / "nodule.onnx").read_bytes()


def test_onnx_names_its_free_axes(exported):
    import onnx

    folder, _ = exported
    shape = onnx.load(folder / "segmentation.onnx").graph.input[0].type.tensor_type.shape
    assert [bool(dim.dim_param) for dim in shape.dim] == [True, False, True, True]


def test_export_says_nothing_on_the_terminal(tmp_path, capfd, caplog):
    for name in FAST:
        needs(name)
    with caplog.at_level(logging.WARNING):
        export_model(tiny("nodule"), tmp_path, FAST)
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


@pytest.mark.slow
@pytest.mark.parametrize("network", ["segmentation", "nodule"])
def test_executorch_is_equal_to_pytorch(tmp_path, network):
    needs("executorch")
    entry = export_model(tiny(network), tmp_path, ["executorch"])
    assert entry.artefacts[0].parity.max_probability <= 1e-6
    assert entry.artefacts[0].runtime.split()[0] == "executorch"
    assert b"XnnpackBackend" in next(tmp_path.glob("*.pte")).read_bytes()


OTHER_NETWORKS: list[dict[str, object]] = [
    {"kind": "unet3d", "depth": 2, "first_filters": 2},
    {"kind": "small"},
    {"kind": "line"},
    {"kind": "picture", "variant": "combined", "mean": [0.5] * 3, "deviation": [0.2] * 3},
]


@pytest.mark.parametrize("spec", OTHER_NETWORKS)
def test_other_networks_leave_too(tmp_path, spec):
    from carina.export import Subject
    from carina.models import Card, build

    needs("onnx")
    subject = Subject("other", build(spec).eval().requires_grad_(False), Card("other", "nodule", spec))
    entry = export_model(subject, tmp_path, ["onnx"])
    assert entry.artefacts[0].parity.max_probability < 1e-6
