"""The robustness table on a small chest with networks whose answers are known."""

from pathlib import Path

import numpy as np
import pytest

from ball_chest import BALLS, GRID, MIDDLE, chest
from carina.data.changes import CHANGES
from carina.data.shapes import load_shapes
from carina.evaluate.present_robustness import present_robustness
from carina.evaluate.robustness import robustness
from carina.io.luna import Annotation
from carina.pipeline import Detector
from carina.volume import Volume
from small_models import save_known_models


def square_chest() -> Volume:
    """The chest in a field as deep as wide, in which it can be turned."""
    hu = np.pad(chest(*BALLS).hu, ((0, 0), (15, 15), (0, 0)), constant_values=-1000)
    return Volume(hu, GRID.crop((0, -15, 0), hu.shape))


@pytest.mark.slow
def test_bright_balls_stay_under_every_change_and_at_their_place(tmp_path: Path) -> None:
    detector = Detector.load(save_known_models(tmp_path), runtime="torch")
    known = [Annotation("", tuple(MIDDLE + center), 2 * radius) for center, radius in BALLS]
    seen: list[None] = []
    result = robustness(
        square_chest(), known, detector, load_shapes().split("test"), nodules=3, on_change=lambda: seen.append(None)
    )
    assert len(seen) == len(result.rows) == len(CHANGES)
    assert result.known == 2
    assert result.inserted == 2  # of three that are tried
    # The inserted nodules are darker than what these networks mark; the two balls are all that is found.
    assert [row.found for row in result.rows] == [2] * len(CHANGES)
    assert all(row.stayed == 2 and row.false == 0 and row.known_rank > 0 for row in result.rows)
    assert max(row.shift_mm for row in result.rows) < 2.5
    text = present_robustness(result, "a chest").to_text()
    assert all(name in text for name in CHANGES)
