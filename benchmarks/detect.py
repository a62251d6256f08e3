"""The main job against the textbook's way (``benchmarks.textbook``): seconds, memory, growth, the same answers.

    python -m benchmarks.detect [--scan CT] [--weights FOLDER] [--runtime NAME] [--repeat N] [--thin N] [-o PAGE]

Three ways see the same file, one after the other in turn, each in a process of its own:

- textbook: eager PyTorch over the whole volume on its own grid;
- carina: Carina's stages on the same grid, so that both must give the same regions and probabilities;
- product: ``carina detect`` as it is: it marks on a grid of 2 mm and classifies on one of 1.5 x 1 x 1 mm.

Every stage is measured in seconds of wall and of processor time; the smallest of the repeats stands. Processor time
says more than wall time where other programs run on the machine.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SIDES = ("textbook", "carina", "product")
STAGES = ("load", "read", "lungs", "segment", "group", "classify")
SAME_P = 1e-4
FEWEST_VOXELS = 20


class Clock:
    """Wall and processor seconds of named stages."""

    def __init__(self) -> None:
        self.seconds: dict[str, tuple[float, float]] = {}

    def __call__(self, name: str, work: Callable[[], Any]) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        self.seconds[name] = (time.perf_counter() - wall, time.process_time() - cpu)
        return result


def weights_folder(weights: Path | None) -> Path:
    import carina

    return weights or Path(carina.__file__).parent / "weights"


def textbook(args: argparse.Namespace, clock: Clock) -> dict[str, np.ndarray]:
    from benchmarks import textbook as way
    from carina.models.card import load_model

    (unet, card), (nodule, second) = clock(
        "load", lambda: [load_model(weights_folder(args.weights) / n) for n in ("segmentation", "nodule")]
    )
    clip = card.preprocessing.clip_hu
    hu = clock("read", lambda: way.read(args.scan))
    probability = clock("segment", lambda: way.segment(hu, unet, card.spec["in_channels"], clip))
    inside = np.load(args.inside, mmap_mode="r")
    centers = clock("group", lambda: way.group(probability, inside, args.threshold, FEWEST_VOXELS))
    centers = centers[np.lexsort(centers.round(1).T[::-1])][: args.candidates]
    p = clock("classify", lambda: way.classify(hu, centers, nodule, second.preprocessing.crop_zyx, clip))
    return {"marked": np.packbits((probability > args.threshold) & inside), "centers": centers, "p": p}


def on_own_grid(volume: Any) -> Any:
    """The scan as it is, with the places near the lungs where candidates may lie."""
    from carina.ct.lungs import find_lungs
    from carina.ct.preprocess import PreparedScan
    from carina.pipeline.detector import NEAR_LUNG_MM

    lungs = find_lungs(volume)
    return PreparedScan(volume.hu, lungs.on(volume.geometry, NEAR_LUNG_MM), volume.geometry, lungs)


def carina(args: argparse.Namespace, clock: Clock) -> dict[str, np.ndarray]:
    from carina.io import read_ct
    from carina.pipeline.classify import classify
    from carina.pipeline.detector import Detector
    from carina.pipeline.group import group
    from carina.pipeline.segment import segment

    models = clock("load", lambda: Detector.load(args.weights, runtime=args.runtime))
    volume = clock("read", lambda: read_ct(args.scan))
    scan = clock("lungs", lambda: on_own_grid(volume))
    inside = scan.lung
    probability = clock("segment", lambda: segment(volume.hu, models.segmenter, inside=inside))
    fewest = FEWEST_VOXELS * volume.geometry.voxel_volume_mm3
    found, _ = clock(
        "group",
        lambda: group(probability, inside, volume.geometry, threshold=args.threshold, min_volume_mm3=fewest * 0.999),
    )
    found = sorted(found, key=lambda c: tuple(np.round(c.center_zyx, 1)))[: args.candidates]
    p = clock("classify", lambda: classify(scan, [c.center_lps for c in found], models.classifier))
    centers = np.array([c.center_zyx for c in found]).reshape(-1, 3)
    return {"marked": np.packbits((probability > args.threshold) & inside), "centers": centers, "p": p}


def product(args: argparse.Namespace, clock: Clock) -> dict[str, np.ndarray]:
    from dataclasses import replace

    from carina.pipeline.detector import Detector

    models = clock("load", lambda: Detector.load(args.weights, runtime=args.runtime))
    card = replace(models.segmenter.card, threshold=args.threshold)
    models = replace(models, segmenter=replace(models.segmenter, card=card))
    cpu, current = time.process_time(), ""
    stages: dict[str, float] = {}

    def tell(stage: str, done: float) -> None:
        nonlocal cpu, current
        if stage != current or done == 1.0:
            stages[current] = stages.get(current, 0.0) + time.process_time() - cpu
            cpu, current = time.process_time(), stage

    report = models.detect(args.scan, progress=tell).report
    for stage, wall in report.seconds.items():
        clock.seconds[stage] = (wall, stages.get(stage, 0.0))
    return {}


def one_side(args: argparse.Namespace) -> None:
    """Run one way and print what it took; the answers go into a file."""
    import torch  # both sides need it; its import is not counted

    torch.set_num_threads(args.threads)
    clock = Clock()
    result = {"textbook": textbook, "carina": carina, "product": product}[args.side](args, clock)
    if result:
        np.savez(args.answers, **result)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": clock.seconds, "peak_mib": peak}))


def call(side: str, args: argparse.Namespace, **more: object) -> dict[str, Any]:
    options = {"side": side, "runtime": args.runtime, "threads": args.threads, **more}
    if args.weights:
        options["weights"] = args.weights
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.detect", *words],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(side, answer, file=sys.stderr, flush=True)
    return answer


def prepare(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The scan as the file that all sides read, where candidates may lie, and the threshold of the mask."""
    from carina.data.phantom import make_phantom
    from carina.io import read_ct, write_image
    from carina.models.card import load_card

    volume = read_ct(args.scan) if args.scan else make_phantom(1, nodules=4, slice_thickness_mm=2.5).volume
    hu, geometry = volume.hu[:: args.thin], volume.geometry
    if args.thin > 1:
        affine = geometry.affine @ np.diag([args.thin, 1.0, 1.0, 1.0])
        geometry = type(geometry)((len(hu), *geometry.shape_zyx[1:]), affine)
    write_image(hu, geometry, folder / "scan.mhd", compress=False)
    volume = read_ct(folder / "scan.mhd")
    np.save(folder / "inside.npy", on_own_grid(volume).lung)
    threshold = load_card(weights_folder(args.weights) / "segmentation").threshold
    return {
        "shape": hu.shape,
        "scan": folder / "scan.mhd",
        "inside": folder / "inside.npy",
        "threshold": args.threshold if args.threshold is not None else threshold,
    }


def same_answers(folder: Path, shape: tuple[int, ...]) -> str:
    """What of the answers differs; an error where more does than rounding can explain."""
    a, b = (np.load(folder / f"{side}.npz") for side in SIDES[:2])
    voxels = int(np.prod(shape))
    first, second = (np.unpackbits(part["marked"], count=voxels) for part in (a, b))
    differ, marked = int((first != second).sum()), int(first.sum())
    if differ > 1e-4 * marked + 2:
        raise SystemExit(f"the masks differ in {differ} of {marked} voxels")
    words = f"Marked voxels: {marked:,}, of which {differ} differ. "
    if a["p"].shape == b["p"].shape and len(a["p"]):
        apart = np.abs(a["centers"] - b["centers"]).max()
        worst = np.abs(a["p"] - b["p"]).max()
        words += f"Candidates: {len(a['p'])}, centres at most {apart:.1e} voxels apart, "
        words += f"probabilities at most {worst:.1e}."
        if differ == 0 and worst > SAME_P:
            raise SystemExit(f"the probabilities of candidates differ by {worst}")
    return words


def least(runs: list[dict[str, Any]], stage: str, kind: int) -> float:
    """The smallest wall (0) or processor (1) seconds of a stage; of the whole run where it is "all"."""
    if stage == "all":
        return min(sum(s[kind] for s in run["seconds"].values()) for run in runs)
    return min(run["seconds"].get(stage, (0.0, 0.0))[kind] for run in runs)


def table(runs: dict[str, list[dict[str, Any]]], kind: int) -> list[str]:
    lines = ["| stage | textbook | same grid | ratio | product | ratio |", "|---|---|---|---|---|---|"]
    for stage in (*STAGES, "all"):
        base, same, default = (least(runs[side], stage, kind) for side in SIDES)
        ratios = [f"{base / x:.1f}" if base and x else "" for x in (same, default)]
        lines.append(f"| {stage} | {base:.3f} | {same:.3f} | {ratios[0]} | {default:.3f} | {ratios[1]} |")
    return lines


def run(args: argparse.Namespace | None = None) -> str:
    """All tables as Markdown."""
    args = args or arguments([])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given = prepare(args, folder)
        shape = given.pop("shape")
        runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
        for _ in range(args.repeat):
            for side in SIDES:
                answers = folder / f"{side}.npz"
                runs[side].append(call(side, args, answers=answers, candidates=args.candidates, **given))
        same = same_answers(folder, shape)
    head = (
        f"CT of {' x '.join(map(str, shape))} voxels, {args.threads} threads, {args.repeat} repeats in turn, smallest "
        f"taken; load of the machine at the end {os.getloadavg()[0]:.1f}. {same}"
    )
    lines = [
        "## The main job against the textbook's way",
        "",
        head,
        "",
        "Processor seconds:",
        "",
        *table(runs, 1),
        "",
        "Wall seconds:",
        "",
        *table(runs, 0),
        "",
        "| | textbook | same grid | product |",
        "|---|---|---|---|",
    ]
    peaks = [min(run["peak_mib"] for run in runs[side]) for side in SIDES]
    lines.append("| peak memory, MiB | " + " | ".join(f"{peak:.0f}" for peak in peaks) + " |")
    lines.append("| of the textbook's | 1 | " + " | ".join(f"{peak / peaks[0]:.2f}" for peak in peaks[1:]) + " |")
    return "\n".join([*lines, "", growth()])


def growth() -> str:
    """Grouping and cutting crops as volume and candidates grow; networks cost the same per slice and per candidate."""
    from benchmarks import textbook as way
    from carina.ct.crops import cut_crops
    from carina.geometry import Geometry
    from carina.pipeline.group import group

    lines = ["| slices | candidates | grouping, textbook | Carina | ratio | crops, textbook | Carina | ratio |"]
    lines.append("|" + "---|" * 8)
    rng = np.random.default_rng(0)
    for slices, count in ((50, 20), (100, 20), (200, 20), (50, 200)):
        shape = (slices, 512, 512)
        probability = np.zeros(shape, np.float32)
        for center in rng.integers((2, 100, 100), (slices - 2, 400, 400), (count, 3)):
            probability[tuple(slice(c - 2, c + 3) for c in center)] = 0.9
        inside, geometry = np.ones(shape, bool), Geometry.from_axes(shape)
        clock = Clock()
        centers = clock("a", lambda p=probability, i=inside: way.group(p, i, 0.5, 1))
        found, _ = clock(
            "b", lambda p=probability, i=inside, g=geometry: group(p, i, g, threshold=0.5, min_volume_mm3=1.0)
        )
        assert len(found) == len(centers)
        hu = probability.astype(np.int16)
        as_float = hu.astype(np.float32)
        points = np.rint(centers).astype(np.int64)
        clock("c", lambda h=as_float, p=points: [way.crop(h, point, (32, 48, 48)) for point in p])
        clock("d", lambda h=hu, p=points: cut_crops(h, p, (32, 48, 48), -1000))
        a, b, c, d = (clock.seconds[k][1] for k in "abcd")
        cells = [f"{slices}", f"{count}", f"{a:.2f}", f"{b:.3f}", f"{a / b:.0f}"]
        cells += [f"{c:.3f}", f"{d:.3f}", f"{c / max(d, 1e-4):.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(["Processor seconds as the volume and the candidates grow:", "", *lines])


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scan", type=Path, help="any CT that Carina reads; default: a phantom")
    parser.add_argument("--weights", type=Path, help="folder of weights; default: the shipped ones")
    parser.add_argument("--threshold", type=float, help="of the mask; default: the card's")
    parser.add_argument("--candidates", type=int, default=200, help="classify at most this many")
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--thin", type=int, default=1, help="take every n-th slice only")
    parser.add_argument("-o", "--output", type=Path, help="write the tables to this file too")
    for hidden in ("--side", "--inside", "--answers"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    return parser.parse_args(words)


if __name__ == "__main__":
    asked = arguments()
    if asked.side:
        one_side(asked)
    else:
        page = run(asked)
        print(page)
        if asked.output:
            asked.output.write_text(page + "\n")
