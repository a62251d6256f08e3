"""From nothing to evaluated: the run behind ``docs/tutorials/train-from-nothing.md``, which it writes its table into.

    python -m benchmarks.train_from_nothing [-o FOLDER] [--size small|tiny]

Every step is a ``carina`` command that is printed before it runs; a step whose result is there is left out, so the
same command goes on where it was stopped.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "tutorials" / "train-from-nothing.md"
BEGIN, END = "<!-- table -->", "<!-- end of table -->"

VARIANTS = {
    "balanced, augmented": (),
    "not balanced": ("--no-balanced",),
    "not augmented": ("--no-augment",),
    "neither": ("--no-balanced", "--no-augment"),
}
"""Ways to train the nodule network, and the options that say so."""


@dataclass(frozen=True)
class Size:
    """How much is made to learn from; how it is learned stands in the TOML file of the same name beside this one.

    Attributes:
        scans: phantoms to learn from.
        tune_scans: phantoms on which both stages are joined and calibrated, of another seed.
        test_scans: phantoms to test with, of a third.
        nodules: nodules in each.
        voxels: options of their resolution.
    """

    scans: int
    tune_scans: int
    test_scans: int
    nodules: int
    voxels: tuple[str, ...]


SIZES = {
    "small": Size(20, 6, 8, 6, ("--slice-mm", "2.5", "--pixel-mm", "1.0")),
    "tiny": Size(6, 2, 2, 6, ("--slice-mm", "5.0", "--pixel-mm", "3.0")),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("demo-train"))
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--page", type=Path, help="where the table goes; default: the tutorial, for size small")
    arguments = parser.parse_args()
    out, size = arguments.output, SIZES[arguments.size]
    out.mkdir(parents=True, exist_ok=True)
    # How long everything takes is known only where nothing was there.
    start = None if any(out.iterdir()) else time.monotonic()
    make_data(out, size, arguments.jobs)
    train(out, Path(__file__).with_name(f"{arguments.size}.toml"))
    found = score(out, next(iter(VARIANTS)), size)
    minutes = None if start is None else (time.monotonic() - start) / 60
    text = report(out, found, minutes, arguments.size, size)
    (out / "table.md").write_text(text)
    page = arguments.page or (PAGE if arguments.size == "small" else None)
    if page is not None:
        before, _, rest = page.read_text().partition(BEGIN)
        page.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{rest.partition(END)[2]}")
    print(text)


def carina(*words: str | Path, done: Path) -> None:
    """Run a command unless what it makes is there."""
    if done.exists():
        return
    print("carina", *words, flush=True)
    subprocess.run([sys.executable, "-m", "carina", *map(str, words)], check=True)


def make_data(out: Path, size: Size, jobs: int) -> None:
    """Three cohorts of phantoms, one of them prepared for training."""
    for name, scans, seed in (("train", size.scans, 1), ("test", size.test_scans, 2), ("tune", size.tune_scans, 3)):
        words = ["--scans", scans, "--seed", seed, "--nodules", size.nodules, "--jobs", jobs, "--malignancy-rule"]
        table = out / name / "annotations_with_malignancy.csv"
        carina("phantom", "-o", out / name, *map(str, words), *size.voxels, done=table)
    # Two grids, as in the shipped weights: a coarse one to search on, a finer one to judge by.
    for store, grid in ((out / "store-2mm", ("--spacing-mm", "2", "2", "2")), (out / "store", ())):
        carina("prepare", out / "train", "-o", store, "--jobs", str(jobs), *grid, done=store / "manifest.json")


def train(out: Path, preset: Path) -> None:
    """The three tasks; the nodule network in all variants."""
    common = ("--preset", preset, "--resume", "--quiet", "--licence", "phantom=made by Carina")

    def run(task: str, folder: Path, *words: str | Path, store: str = "store") -> None:
        carina("train", task, "--data", out / store, "-o", folder, *words, *common, done=folder / "model.json")

    run("segmentation", out / "segmentation", store="store-2mm")
    for name, options in VARIANTS.items():
        run("nodule", folder_of(out, name), *options)
    best = folder_of(out, next(iter(VARIANTS))) / "model.safetensors"
    run("malignancy", out / "malignancy", "--init-from", best)
    runs = [folder_of(out, name) for name in VARIANTS]
    # Runs have no result that tells whether they were compared: it takes seconds, so it is done again.
    shutil.rmtree(out / "compared", ignore_errors=True)
    carina("runs", "compare", *runs, "-o", out / "compared", done=out / "compared")


def folder_of(out: Path, variant: str) -> Path:
    """Of a variant's run."""
    return out / f"nodule-{variant.replace(', ', '-').replace(' ', '-')}"


def scans_of(cohort: Path) -> list[Path]:
    """In a fixed order."""
    return sorted(cohort.glob("subset*/*.mhd"))


def score(out: Path, variant: str, size: Size) -> dict[str, Any]:
    """Put a variant's weights together, calibrate them on one cohort, detect in another, and evaluate."""
    run = folder_of(out, variant)
    weights, found, scored = run / "weights", run / "found", run / "froc"
    weights.mkdir(exist_ok=True)
    for task, folder in {"segmentation": out / "segmentation", "nodule": run, "malignancy": out / "malignancy"}.items():
        for end in (".safetensors", ".json"):
            # Calibration rewrites a card: what was copied once stays.
            if not (weights / f"{task}{end}").exists():
                shutil.copyfile(folder / f"model{end}", weights / f"{task}{end}")
    options = ("--weights", weights, "--threshold", "0", "--format", "json,csv", "--resume", "--quiet")
    tuned = run / "operating-point"
    carina("detect", "-i", *scans_of(out / "tune"), "-o", run / "tune", *options, done=tuned)
    said = f"{size.tune_scans} phantoms of another seed"
    cohort = ("--cohorts", out / "tune", "--weights", weights, "--measured-on", said)
    carina("tune", "calibrate", run / "tune", *cohort, "-o", tuned, done=tuned / "summary.json")
    scans = scans_of(out / "test")
    (out / "series.txt").write_text("".join(f"{scan.stem}\n" for scan in scans))
    carina("detect", "-i", *scans, "-o", found, *options, done=scored)
    truth = ("--annotations", out / "test" / "annotations.csv", "--series", out / "series.txt")
    carina("evaluate", "froc", found, *truth, "-o", scored, done=scored / "summary.json")
    outcomes = out / "test" / "annotations_with_malignancy.csv"
    whole = run / "pipeline"
    judged = ("--malignancy", outcomes, "--threshold", "0.5", "-o", whole)
    carina("evaluate", "pipeline", found, *judged, done=whole / "summary.json")
    return dict(json.loads((scored / "summary.json").read_text())["result"])


def report(out: Path, found: dict[str, Any], minutes: float | None, name: str, size: Size) -> str:
    """The tables of the page."""
    compared = json.loads((out / "compared" / "summary.json").read_text())["result"]
    standings = {s["name"]: s for s in compared["standings"]}
    gaps = {g["other"]: g for g in compared["gaps"]}
    made = f"{size.scans} phantoms to learn from, {size.tune_scans} to calibrate with, {size.test_scans} to test with"
    header = ("nodule network", "AUC, held-out candidates", "the best run's gain")
    taken = "" if minutes is None else f"; {minutes:.0f} minutes in all"
    lines = [f"`--size {name}`: {made}, {size.nodules} nodules in each{taken}. In brackets 95 % intervals.", ""]
    lines += [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for variant in VARIANTS:
        run = folder_of(out, variant).name
        standing, gap = standings[run], gaps.get(run)
        auc = f"{standing['value']:.3f} ({_range(standing['interval'])})"
        gain = "the best" if gap is None else f"{gap['difference']:+.3f} ({_range(gap['interval'], '+')})"
        lines.append(f"| {variant} | {auc} | {gain} |")
    marking = json.loads((out / "segmentation" / "model.json").read_text())["metrics"]
    rating = json.loads((out / "malignancy" / "model.json").read_text())["metrics"]
    shown = {
        "segmentation, Dice of held-out crops": marking.get("val_dice"),
        "segmentation, share of nodules touched": marking.get("val_touched"),
        "malignancy by the made-up rule, AUC": rating.get("val_auc"),
        "the same from the diameter alone, AUC": rating.get("auc_of_diameter"),
    }
    lines += ["", "| other tasks | |", "|---|---|"]
    lines += [f"| {what} | {'none' if value is None else f'{value:.3f}'} |" for what, value in shown.items()]
    average = f"{found['average']:.3f} ({_range(found['average_interval'])})"
    lines += [f"| all three together on the test scans, FROC average | {average} |"]
    whole = json.loads((folder_of(out, next(iter(VARIANTS))) / "pipeline" / "summary.json").read_text())
    table = whole["result"]["score"]["table"]
    lines += ["", f"| all three networks, test scans | {' | '.join(table['said'])} |", "|---" * 5 + "|"]
    rows = zip(table["truth"], table["counts"], strict=True)
    lines += [f"| {truth} | {' | '.join(map(str, counts))} |" for truth, counts in rows]
    return "\n".join(lines) + "\n"


def _range(limits: list[float | None], sign: str = "") -> str:
    low, high = limits
    return "no interval" if low is None or high is None else f"{low:{sign}.3f} to {high:{sign}.3f}"


if __name__ == "__main__":
    main()
