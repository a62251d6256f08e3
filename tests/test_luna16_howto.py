"""The page about LUNA16 works as written, on a small cohort in LUNA16's layout."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import carina
from carina.cli.phantom import Phantom
from carina.io.luna import LunaCohort
from carina.models.card import load_card

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "luna16.md"

SHORT = ["--epochs", "1", "--crops-per-epoch", "8", "--batch", "4"]
SECONDS = {
    "carina prepare": ["--jobs", "1"],
    "carina train segmentation": [*SHORT, "--validation-crops", "4"],
    "carina train nodule": [*SHORT, "--validation-crops", "8"],
    # Networks that learned for seconds mark nothing that could be calibrated.
    "carina detect -i luna16/subset8": ["--weights", str(Path(carina.__file__).parent / "weights")],
}
"""What makes the page's commands take seconds; everything else is run as it stands there."""


def keep_columns(path: Path, columns: list[str]) -> None:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def make_luna16(root: Path) -> None:
    """Coarse phantoms with nothing but what LUNA16 has: scans in subsets, and tables with its own columns."""
    Phantom(root, scans=6, seed=5, nodules=4, slice_mm=4.0, pixel_mm=3.0).run()
    position = ["seriesuid", "coordX", "coordY", "coordZ"]
    keep_columns(root / "annotations.csv", [*position, "diameter_mm"])
    keep_columns(root / "candidates.csv", [*position, "class"])
    (root / "candidates.csv").rename(root / "candidates_V2.csv")
    (root / "annotations_excluded.csv").write_text(",".join([*position, "diameter_mm"]) + "\n")
    shutil.rmtree(root / "masks")
    (root / "scans.csv").unlink()
    # Two phantoms are kept apart, two choose and calibrate, the others train.
    places = [root / "test" / "subset9"] * 2 + [root / "subset8"] * 2 + [root / "subset0"] * 2
    for place, scan in zip(places, list(LunaCohort(root).scans.values()), strict=True):
        place.mkdir(parents=True, exist_ok=True)
        for file in scan.parent.glob(f"{scan.stem}.*"):
            file.rename(place / file.name)


def commands() -> list[str]:
    """Lines of the page's bash blocks; downloads are marked as sh."""
    blocks = re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.strip().splitlines()]


@pytest.mark.slow
def test_the_commands_of_the_page_lead_to_a_curve(tmp_path: Path) -> None:
    make_luna16(tmp_path / "luna16")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for line in commands():
        options = next((more for start, more in SECONDS.items() if line.startswith(start)), [])
        done = subprocess.run(
            ["bash", "-ec", " ".join([line, *options])], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    result = json.loads((tmp_path / "froc" / "summary.json").read_text())["result"]
    assert result["n_scans"] == 2
    assert result["n_nodules"] == 8
    assert 0 <= result["average"] <= 1
    assert (tmp_path / "runs" / "nodule" / "held_out.csv").is_file()
    card = load_card(tmp_path / "weights" / "nodule")
    assert card.measured_on == "LUNA16, subset8"
    assert set(card.operating_points) == {"high", "balanced", "specific"}


def test_the_page_shows_every_step() -> None:
    text = "\n".join(commands())
    steps = (
        "prepare",
        "train segmentation",
        "train nodule",
        "models leak",
        "detect",
        "tune calibrate",
        "evaluate froc",
    )
    for step in steps:
        assert f"carina {step}" in text
