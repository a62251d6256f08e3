"""``carina export`` on folders of weights."""

import json

import pytest

from carina.cli import main
from carina.models.card import Card, save_model
from small_models import save_known_models, sure_nodule_net


@pytest.fixture(scope="module")
def rated(tmp_path_factory):
    """A folder whose malignancy is a network."""
    folder = save_known_models(tmp_path_factory.mktemp("rated"))
    card = Card("rater", "malignancy", {"kind": "nodule", "first_filters": 1})
    save_model(folder / "malignancy", sure_nodule_net(0.25), card)
    return folder


def run(*arguments):
    with pytest.raises(SystemExit) as end:
        main(["export", *map(str, arguments)])
    return end.value.code


def test_a_malignancy_network_leaves_with_the_others(rated, tmp_path, capsys):
    assert run(rated, "--to", "torchscript", "--random-only", "-o", tmp_path) == 0
    out = capsys.readouterr().out
    assert all(f"| {name} | " in out for name in ("segmentation", "nodule", "malignancy"))
    assert set(json.loads((tmp_path / "manifest.json").read_text())["networks"]) == {
        "segmentation",
        "nodule",
        "malignancy",
    }


def test_the_steps_of_the_pipeline_know_the_rule_only(rated, tmp_path, capsys):
    assert run(rated, "--to", "torchscript", "--random-only", "--pipeline", "-o", tmp_path / "out") != 0
    assert "rule of size" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
