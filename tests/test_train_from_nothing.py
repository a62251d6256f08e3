"""``make demo-train`` in small: every command of the tutorial once, from no data to the table."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_from_nothing_to_the_table_and_on_from_where_it_was(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table -->\nold\n<!-- end of table -->\nafter\n")
    command = [sys.executable, "-m", "benchmarks.train_from_nothing", "--size", "tiny", "--jobs", "1"]
    command += ["-o", str(tmp_path / "run"), "--page", str(page)]
    first = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stderr[-3000:]
    text = page.read_text()
    assert text.startswith("before\n<!-- table -->")
    assert text.endswith("<!-- end of table -->\nafter\n")
    assert "old" not in text
    for variant in ("balanced, augmented", "not balanced", "not augmented", "neither"):
        assert re.search(rf"\| {variant} \| [01]\.\d{{3}} ", text), variant
    assert re.search(r"FROC average \| [01]\.\d{3} ", text)
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr[-3000:]
    made_again = re.findall(r"^carina (\w+)", again.stdout, re.MULTILINE)
    assert made_again == ["runs"], "only the comparison of runs is made anew"
