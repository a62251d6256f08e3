"""FROC of 55,677 detections: Carina's against the same protocol written with loops.

    python -m benchmarks.froc [FOLDER]     # holds deeplung_detections.csv and LUNA16's tables

Both read the same tables in one run on one machine; the ratio is the result. The loops do what LUNA16's published
script does: every detection of a scan against every mark of it, and for each bootstrap a new list of all events,
sorted again. Their bootstrap is timed on a few resamples and scaled.
"""

import argparse
import os
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

from carina.evaluate.froc import LUNA_RATES, froc
from carina.evaluate.match import Matches, match
from carina.evaluate.tables import Detections, Nodules, read_detections, read_nodules, read_series

Event = tuple[float, bool]
RESAMPLES_TIMED = 10


def by_scan(table: Detections | Nodules, values: np.ndarray) -> dict[str, list[tuple[list[float], float]]]:
    """Rows of a table by scan: position and score or diameter."""
    rows = defaultdict(list)
    for uid, position, value in zip(table.series_uid, table.center_lps.tolist(), values.tolist(), strict=True):
        rows[uid].append((position, value))
    return rows


def events_by_loops(
    detections: Detections, nodules: Nodules, excluded: Nodules, scans: list[str]
) -> dict[str, tuple[list[Event], int]]:
    """For each scan: (score, is a hit) of what counts, and the number of its nodules."""
    found = by_scan(detections, detections.score)
    marks = [(by_scan(nodules, nodules.diameter_mm), True), (by_scan(excluded, excluded.diameter_mm), False)]
    result = {}
    for scan in scans:
        used: set[int] = set()
        events: list[Event] = []
        rows = sorted(found[scan], key=lambda row: -row[1])[:100]
        for table, counts in marks:
            for center, diameter in table[scan]:
                radius = (10.0 if diameter < 0 else diameter) / 2
                hits = [
                    i
                    for i, (position, _) in enumerate(rows)
                    if sum((a - b) ** 2 for a, b in zip(position, center, strict=True)) < radius**2
                ]
                used.update(hits)
                if counts and hits:
                    events.append((max(rows[i][1] for i in hits), True))
        events += [(score, False) for i, (_, score) in enumerate(rows) if i not in used]
        result[scan] = events, len(marks[0][0][scan])
    return result


def sensitivity_by_loops(scans: list[tuple[list[Event], int]]) -> list[float]:
    """Sensitivity at the seven rates, from one pass over all events in the order of their scores."""
    events = sorted((event for of_scan, _ in scans for event in of_scan), reverse=True)
    n_nodules = sum(n for _, n in scans)
    false, true = [0.0], [0.0]
    n_true = n_false = 0
    for i, (score, is_hit) in enumerate(events):
        n_true, n_false = n_true + is_hit, n_false + (not is_hit)
        if i + 1 == len(events) or events[i + 1][0] != score:
            false.append(n_false / len(scans))
            true.append(n_true / n_nodules)
    return [float(np.interp(rate, false, true)) for rate in LUNA_RATES]


def run(folder: Path | None = None) -> str:
    """Measure both; the figures as Markdown.

    Args:
        folder: of the tables; by default those beside the real scans that tests use.
    """
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = folder or Path(os.environ.get("CARINA_TEST_DATA", beside)) / "annotations" / "luna16"
    if not (folder / "deeplung_detections.csv").is_file():
        return f"FROC was not measured: no deeplung_detections.csv in {folder.name}; set CARINA_TEST_DATA"
    start = time.process_time()
    detections = read_detections(folder / "deeplung_detections.csv")
    nodules = read_nodules(folder / "annotations.csv")
    excluded = read_nodules(folder / "annotations_excluded.csv")
    scans = read_series(folder / "seriesuids.csv")
    reading = time.process_time() - start

    start = time.process_time()
    matches: Matches = match(detections, nodules, excluded=excluded, scans=scans)
    matching = time.process_time() - start
    start = time.process_time()
    result = froc(matches, bootstraps=1000)
    scoring = time.process_time() - start

    start = time.process_time()
    events = events_by_loops(detections, nodules, excluded, scans)
    loops_matching = time.process_time() - start
    start = time.process_time()
    expected = sensitivity_by_loops(list(events.values()))
    generator = np.random.default_rng(0)
    for _ in range(RESAMPLES_TIMED):
        sensitivity_by_loops([events[scans[i]] for i in generator.integers(len(scans), size=len(scans))])
    loops_scoring = (time.process_time() - start) * 1001 / (RESAMPLES_TIMED + 1)

    np.testing.assert_allclose(result.sensitivity, expected, atol=1e-12)
    rows = [("matching", loops_matching, matching), ("1,000 bootstraps", loops_scoring, scoring)]
    rows.append(("both", loops_matching + loops_scoring, matching + scoring))
    return "\n".join(
        [
            "| processor seconds | loops | carina | ratio |",
            "|---|---|---|---|",
            *(f"| {name} | {slow:.2f} | {fast:.2f} | **{slow / fast:.0f}** |" for name, slow, fast in rows),
            "",
            f"Average sensitivity {result.average:.5f}, the same by both. Reading the tables takes {reading:.2f} s.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="holds deeplung_detections.csv and LUNA16's tables")
    print(run(parser.parse_args().folder))


if __name__ == "__main__":
    main()
