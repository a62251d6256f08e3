"""Which models there are, and which scans they have seen."""

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from carina.cli import main
from carina.errors import WeightsError
from carina.models.build import Spec, build
from carina.models.card import Card, Training, load_card, save_model
from carina.models.inventory import find_leaks, find_models
from carina.models.malignancy import DiameterRule, RuleEvidence

SPEC: Spec = {"kind": "unet", "in_channels": 7, "depth": 1, "first_filters": 2}
CARD = Card("tiny", "segmentation", SPEC, training=Training(series_uids=("1.2.3", "1.2.4")))
RULE = DiameterRule(-11.0, 5.0, "log", RuleEvidence("t", "l", (), 2, 1, 0.9, (0.8, 0.95), 0.1, 0.1, "m", ("1.2.5",)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(tmp_path / "a" / "model", build(SPEC), CARD)
    save_model(tmp_path / "b" / "model", build(SPEC), replace(CARD, name="silent", training=Training()))
    RULE.save(tmp_path / "malignancy.json")
    (tmp_path / "report.json").write_text('{"schema_version": "1.0"}')
    (tmp_path / "broken.json").write_text("{")
    return tmp_path


def run(arguments: list[str]) -> int | str | None:
    with pytest.raises(SystemExit) as end:
        main(["models", *arguments])
    return end.value.code


def test_cards_are_found_below_a_folder_and_other_files_left_alone(folder: Path) -> None:
    assert [(m.name, m.answers) for m in find_models(folder)] == [
        ("tiny", "segmentation"),
        ("silent", "segmentation"),
        ("diameter-rule", "malignancy"),
    ]


def test_the_rule_has_one_name_in_reports_and_lists_and_is_found_by_its_file_too(folder: Path, capsys) -> None:
    (rule,) = find_models(folder / "malignancy.json")
    assert rule.name == msgspec.json.decode((folder / "malignancy.json").read_bytes())["kind"]
    RULE.save(folder / "size.json")
    for name in ("diameter-rule", "size"):
        assert run(["show", name, "--weights", str(folder / "size.json")]) == 0
        assert '"slope"' in capsys.readouterr().out


def test_a_card_is_found_by_its_weights(folder: Path) -> None:
    for name in ("model.safetensors", "model.json"):
        (model,) = find_models(folder / "a" / name)
        assert model.series_uids == ("1.2.3", "1.2.4")
    (rule,) = find_models(folder / "malignancy.json")
    assert rule.series_uids == ("1.2.5",)


def test_no_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no model card"):
        find_models(tmp_path)
    with pytest.raises(WeightsError, match="no model card"):
        find_models(tmp_path / "model.safetensors")


def test_a_file_that_is_not_utf8_is_damaged_or_none_of_ours(folder: Path) -> None:
    (folder / "broken.json").write_bytes(b'{"kind": "\xff"}')
    assert len(find_models(folder)) == 3
    (folder / "a" / "model.json").write_bytes(b'{"name": "\xff"}')
    with pytest.raises(WeightsError, match="is not a model card"):
        load_card(folder / "a" / "model")
    RULE.save(folder / "malignancy.json")
    damaged = (folder / "malignancy.json").read_bytes().replace(b'"data": "t"', b'"data": "\xff"')
    (folder / "malignancy.json").write_bytes(damaged)
    with pytest.raises(WeightsError, match="is not the card of a diameter rule"):
        DiameterRule.load(folder / "malignancy.json")


def test_leaks_are_told_by_model(folder: Path) -> None:
    leaks = find_leaks(find_models(folder), ["1.2.4", "1.2.5", "1.2.6"])
    assert [(leak.seen, leak.knows) for leak in leaks] == [(("1.2.4",), True), ((), False), (("1.2.5",), True)]


def test_command_lists_shows_and_finds_leaks(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--weights", str(folder)]
    assert run(["list", *where]) == 0
    assert capsys.readouterr().out.count("segmentation") == 2
    assert run(["show", "tiny", *where]) == 0
    assert "2 series" in capsys.readouterr().out
    assert run(["show", "tiny", "--series", *where]) == 0
    assert capsys.readouterr().out.split() == ["1.2.3", "1.2.4"]
    assert run(["show", "nobody", *where]) == 2
    table = folder / "annotations.csv"
    table.write_text("seriesuid,coordX\n1.2.3,0\n1.2.3,1\n1.2.9,2\n")
    assert run(["leak", "--series", str(table), *where]) == 1
    shown = capsys.readouterr().out
    assert "tiny: learned from 1 of 2 series\n  1.2.3\n" in shown
    assert "silent: its card does not say" in shown
    assert run(["leak", "--series", "1.2.9", "--weights", str(folder / "a")]) == 0


def test_a_card_that_does_not_say_what_it_learned_from_opens_no_gate(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["leak", "--series", "1.2.9", "--weights", str(folder / "b")]) == 1
    assert capsys.readouterr().out == "silent: its card does not say what it learned from\n"


def test_a_copy_of_a_ct_that_was_learned_from_is_a_leak(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "scans.csv"
    table.write_text("seriesuid,background_uid\n9.9.1,1.2.4\n9.9.2,\n")
    assert run(["leak", "--series", str(table), "--weights", str(folder / "a")]) == 1
    table.write_text("seriesuid,background_uid\n9.9.1,1.2.9\n9.9.2,\n")
    assert run(["leak", "--series", str(table), "--weights", str(folder / "a")]) == 0


def test_a_mistyped_list_is_wrong_usage_and_no_leak(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["leak", "--series", "nofile.txt", "--weights", str(folder)]) == 2
    assert "'nofile.txt' is neither a file nor a series UID" in capsys.readouterr().err


def test_the_text_names_the_first_ten_series_and_json_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uids = [f"1.2.{k}" for k in range(12)]
    save_model(tmp_path / "model", build(SPEC), replace(CARD, training=Training(series_uids=tuple(uids))))
    asked = ["leak", "--series", *uids, "1.3", "--weights", str(tmp_path)]
    assert run(asked) == 1
    lines = ["tiny: learned from 12 of 13 series", *(f"  {uid}" for uid in uids[:10]), "  and 2 more; --json lists all"]
    assert capsys.readouterr().out.splitlines() == lines
    assert run([*asked, "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said == {"asked": [*uids, "1.3"], "models": [{"model": "tiny", "knows": True, "seen": uids}]}


def test_shipped_rule_knows_its_series(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["show", "malignancy", "--series"]) == 0
    uids = capsys.readouterr().out.split()
    assert len(uids) > 500
    assert run(["leak", "--series", uids[0]]) == 1
