"""M29, M31-M33: the networks have the form and size they should, and their weights travel safely."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carina.ct.preprocess import Preprocessing
from carina.errors import WeightsError
from carina.models.build import build
from carina.models.card import Calibration, Card, DataSource, Training, load_model, save_model
from carina.models.nodule import CROP_ZYX, NoduleNet
from carina.models.unet import UNet

SMALL_UNET = {"kind": "unet", "in_channels": 3, "depth": 2, "first_filters": 2}


def parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_unet_of_row_m29_has_118271_parameters() -> None:
    assert parameters(UNet()) == 118_271


def test_nodule_network_of_row_m32_has_222220_parameters() -> None:
    assert parameters(NoduleNet()) == 222_220


@settings(max_examples=5, deadline=None)
@given(batch=st.integers(1, 3), height=st.integers(1, 5), width=st.integers(1, 5))
def test_unet_gives_one_logit_per_pixel(batch: int, height: int, width: int) -> None:
    assert UNet().eval()(torch.zeros(batch, 7, 4 * height, 4 * width)).shape == (batch, 1, 4 * height, 4 * width)


def test_nodule_network_gives_two_logits_per_crop() -> None:
    assert NoduleNet()(torch.zeros(2, 1, *CROP_ZYX)).shape == (2, 2)


def test_initial_weights_have_variance_two_over_fan_out() -> None:
    weight = NoduleNet().blocks[3][2].weight
    assert weight.var().item() == pytest.approx(2 / (64 * 27), rel=0.05)


NETWORKS = [(UNet(), (2, 7, 16, 24)), (NoduleNet(), (2, 1, *CROP_ZYX))]


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize(("network", "shape"), NETWORKS)
def test_scripted_network_gives_the_same_logits(network: torch.nn.Module, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    network.eval()
    torch.testing.assert_close(torch.jit.script(network)(x), network(x))


@pytest.mark.parametrize(("network", "shape"), NETWORKS)
def test_exported_network_gives_the_same_logits_for_any_batch(network: torch.nn.Module, shape: tuple[int, ...]) -> None:
    network.eval()
    exported = torch.export.export(network, (torch.randn(shape),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    x = torch.randn(5, *shape[1:])
    torch.testing.assert_close(exported.module()(x), network(x))


def test_an_unknown_network_is_refused_by_name() -> None:
    with pytest.raises(WeightsError, match="kind 'transformer'"):
        build({"kind": "transformer"})


def test_an_unknown_argument_of_a_network_is_refused() -> None:
    with pytest.raises(WeightsError, match="colour"):
        build({"kind": "unet", "colour": 3})


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, torch.nn.Module, Card]:
    card = Card(
        name="small",
        task="segmentation",
        spec=SMALL_UNET,
        preprocessing=Preprocessing(spacing_zyx_mm=(2.0, 2.0, 2.0), clip_hu=(-900.0, 300.0)),
        training=Training(seed=3, data=(DataSource("phantoms", "Apache-2.0", 4),), series_uids=("1.2.3", "1.2.4")),
        metrics={"dice": 0.5},
        calibration=Calibration("temperature", classification=0.8),
        threshold=0.6,
    )
    network = build(SMALL_UNET).eval()
    return tmp_path / "model", network, save_model(tmp_path / "model", network, card)


@pytest.mark.parametrize("ending", ["", ".safetensors", ".json"])
def test_a_saved_model_comes_back_with_its_card(saved: tuple[Path, torch.nn.Module, Card], ending: str) -> None:
    path, network, card = saved
    loaded, loaded_card = load_model(path.with_name(path.name + ending))
    assert loaded_card == card
    x = torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(loaded(x), network(x), rtol=0, atol=0)


def test_half_precision_storage_halves_the_file_and_loads_as_float32(
    saved: tuple[Path, torch.nn.Module, Card], tmp_path: Path
) -> None:
    _, _, card = saved
    network = build({"kind": "unet"}).eval()
    full = replace(card, spec={"kind": "unet"})
    save_model(tmp_path / "full", network, full)
    save_model(tmp_path / "half", network, replace(full, dtype="float16"))
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("half", "full")]
    assert sizes[0] < 0.52 * sizes[1]
    loaded, _ = load_model(tmp_path / "half")
    x = torch.randn(1, 7, 16, 16)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    torch.testing.assert_close(loaded(x), network(x), atol=0.05, rtol=0.05)


def test_metrics_without_a_value_are_left_out_of_the_card(tmp_path: Path) -> None:
    card = Card("x", "segmentation", SMALL_UNET, metrics={"dice": 0.5, "precision": float("nan")})
    save_model(tmp_path / "model", build(SMALL_UNET), card)
    assert load_model(tmp_path / "model")[1].metrics == {"dice": 0.5}


def test_a_changed_byte_in_the_weights_is_noticed(saved: tuple[Path, torch.nn.Module, Card]) -> None:
    path = saved[0].with_suffix(".safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="damaged or belongs to another card"):
        load_model(path)


def test_weights_of_another_network_are_refused(saved: tuple[Path, torch.nn.Module, Card]) -> None:
    path, _, card = saved
    other = replace(card, spec={**SMALL_UNET, "first_filters": 4})
    path.with_suffix(".json").write_bytes(msgspec.json.encode(other))
    with pytest.raises(WeightsError, match="do not fit the network"):
        load_model(path)


def test_saving_under_the_wrong_spec_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="do not fit the network"):
        save_model(tmp_path / "x", build(SMALL_UNET), Card("x", "segmentation", {"kind": "unet"}))


def test_a_missing_card_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no model card at .*absent\.json"):
        load_model(tmp_path / "absent")


def test_missing_weights_are_named(saved: tuple[Path, torch.nn.Module, Card]) -> None:
    saved[0].with_suffix(".safetensors").unlink()
    with pytest.raises(WeightsError, match="no weights at"):
        load_model(saved[0])


def test_a_card_that_is_something_else_is_refused(saved: tuple[Path, torch.nn.Module, Card]) -> None:
    saved[0].with_suffix(".json").write_text(json.dumps({"name": 3}))
    with pytest.raises(WeightsError, match="is not a model card"):
        load_model(saved[0])


def test_weights_that_are_not_safetensors_are_refused(saved: tuple[Path, torch.nn.Module, Card]) -> None:
    import hashlib

    path, _, card = saved
    path.with_suffix(".safetensors").write_bytes(b"not weights")
    card = replace(card, sha256=hashlib.sha256(b"not weights").hexdigest())
    path.with_suffix(".json").write_bytes(msgspec.json.encode(card))
    with pytest.raises(WeightsError, match="is not a safetensors file"):
        load_model(path)


def test_the_nodule_network_learns_by_a_shorter_way_to_the_same_gradients() -> None:
    torch.manual_seed(0)
    model = NoduleNet(first_filters=2).double()
    with torch.no_grad():
        model.input_norm.weight.fill_(0.7)
        model.input_norm.bias.fill_(0.3)
    plain, crops = copy.deepcopy(model), torch.randn(3, 1, 32, 48, 48, dtype=torch.float64)
    short, long = model(crops), plain.head(plain.blocks(plain.input_norm(crops)).flatten(1))
    torch.testing.assert_close(short, long, rtol=1e-10, atol=1e-10)
    for logits in (short, long):
        logits.square().sum().backward()
    for (name, one), other in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-8, atol=1e-10, msg=name)
    for one, other in zip(model.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(one, other)
