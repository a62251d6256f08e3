"""Data and training step against the textbook way and MONAI's, in one run on one machine.

    python -m benchmarks.training            # prints a table; -o FILE writes it as Markdown

Each side lives in a process of its own with one thread, so that one side's memory settings do not help another. The
sides take turns, round by round; a row shows the median over the rounds. Times are processor seconds, which a busy
machine disturbs less than the clock; all files are in the page cache, so that disks do not matter. Scans are made of
noise: what is measured does not depend on what they show.
"""

import argparse
import multiprocessing
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

SCAN_ZYX = (300, 512, 512)
"""A whole CT as the textbook reads it."""
BOX_ZYX = (200, 260, 340)
"""The box of its lungs on the analysis grid, as the store holds it."""
CROP_ZYX = (32, 48, 48)
BATCH = 24
STEPS = 2
SCANS = 6
WHOLE_SCANS = 3

ROWS = {
    "warm loader": ("crops that were asked for before, in batches", 8.0, 5),
    "same, uncompressed": ("where the textbook's cache were not compressed", 0.0, 5),
    "random access": ("each crop from another of many scans", 1000.0, 3),
    "augmentation": ("flip, shift, scale, rotation, noise", 3.0, 5),
    "training step": (f"batch of {BATCH}, forward and backward", 2.3, 3),
    "same, precision auto": ("bfloat16 where the processor has it", 0.0, 3),
}
"""Name, what it is, the ratio that is asked for, and rounds."""

Workloads = dict[str, Callable[[], tuple[int, int]]]
"""Name to work that gives back the samples it made and the bytes of each."""


def write_data(folder: Path) -> None:
    """Whole scans as .mhd with .raw, and prepared boxes as .npy in a store's layout."""
    from carina.ct.preprocess import Preprocessing
    from carina.data.store import FORMAT, RECORD, Manifest, Scan, write_manifest
    from carina.geometry import Geometry
    from carina.io import write_image

    rng = np.random.default_rng(0)
    tile = rng.integers(-1000, 200, (50, 512, 512), dtype=np.int16)
    for k in range(WHOLE_SCANS):
        hu = np.concatenate([np.roll(tile, 7 * k + j, axis=2) for j in range(SCAN_ZYX[0] // len(tile))])
        geometry = Geometry.from_axes(SCAN_ZYX, spacing_zyx_mm=(1.0, 0.7, 0.7))
        write_image(hu, geometry, folder / "whole" / f"1.2.{k}.mhd", compress=False)
    records = []
    for k in range(SCANS):
        box = np.resize(np.roll(tile, k, axis=1)[:, : BOX_ZYX[1], : BOX_ZYX[2]], BOX_ZYX)
        target = folder / "store" / f"scan{k}"
        target.mkdir(parents=True)
        np.save(target / "hu.npy", box)
        affine = ((0.0, 0.0, 1.0, 0.0), (0.0, 1.0, 0.0, 0.0), (1.5, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
        records.append(Scan(f"scan{k}", f"1.2.{k}", str(k), "noise", None, 1.0, 5.0, BOX_ZYX, affine, ()))
        (target / RECORD).write_bytes(records[-1].to_json())
    write_manifest(folder / "store", Manifest(FORMAT, Preprocessing(), tuple(records), {}))


def centers(n: int, shape: tuple[int, int, int], seed: int = 1) -> np.ndarray:
    """Places for crops."""
    return np.random.default_rng(seed).integers(24, np.array(shape) - 24, (n, 3))


def textbook(folder: Path) -> Workloads:
    """The baseline, see ``benchmarks.textbook_data``."""
    import SimpleITK
    import torch

    from benchmarks import textbook_data
    from carina.models.nodule import NoduleNet

    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    paths = sorted((folder / "whole").glob("*.mhd"))
    cache = folder / "cache"
    cache.mkdir()
    one_scan = [(paths[0], (int(z), int(y), int(x)), k % 2) for k, (z, y, x) in enumerate(centers(240, SCAN_ZYX))]
    packed = textbook_data.CachedCrops(cache, one_scan[:120], CROP_ZYX, compress=True)
    plain = textbook_data.CachedCrops(cache, one_scan, CROP_ZYX, compress=False)
    for dataset in (packed, plain):
        for k in range(len(dataset)):
            dataset[k]
    torch.manual_seed(0)
    crops = torch.randn(BATCH, 1, *CROP_ZYX) * 200 - 500
    scaled, target = crops / 1000, torch.arange(BATCH) % 2
    model = NoduleNet()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)

    def load(dataset: textbook_data.CachedCrops) -> tuple[int, int]:
        sizes = [crops.nbytes // len(crops) for crops, _ in textbook_data.loader(dataset, BATCH)]
        return len(dataset), sizes[0]

    def access() -> tuple[int, int]:
        places = centers(4, SCAN_ZYX, 2).tolist()
        made = [textbook_data.raw_crop(paths[k % len(paths)], tuple(c), CROP_ZYX) for k, c in enumerate(places)]
        return len(made), made[0].nbytes

    def augment() -> tuple[int, int]:
        made = [textbook_data.augmented(crop) for crop in crops]
        return len(made), made[0].nbytes

    def step() -> tuple[int, int]:
        for _ in range(STEPS):
            textbook_data.training_step(model, optimizer, scaled, target)
        return STEPS * BATCH, crops[0].nbytes

    return {
        "warm loader": lambda: load(packed),
        "same, uncompressed": lambda: load(plain),
        "random access": access,
        "augmentation": augment,
        "training step": step,
        "same, precision auto": step,
    }


def carina(folder: Path) -> Workloads:
    """What ``carina train`` does."""
    import torch

    from carina.data.augment import AugmentSettings, apply, draw
    from carina.data.batches import cut_batch
    from carina.data.sampling import CropList
    from carina.data.store import Store
    from carina.learn import Batches, FitSettings, fit
    from carina.learn.memory import keep_freed_memory
    from carina.learn.settings import Precision
    from carina.models.nodule import NoduleNet
    from carina.tasks.candidates import CandidateBatch, Candidates, CandidateSettings

    keep_freed_memory()
    store = Store(folder / "store")

    def crop_list(n: int, scan: np.ndarray, seed: int) -> CropList:
        kind = np.ones(n, np.int64)
        return CropList(scan.astype(np.int64), centers(n, BOX_ZYX, seed), kind, -kind, np.arange(n) % 2)

    warm, many = crop_list(960, np.zeros(960), 1), crop_list(960, np.arange(960) % SCANS, 2)
    # A turned crop is cut larger, so that its corners are filled with what is there.
    large = (CROP_ZYX[0] + 8, CROP_ZYX[1] + 20, CROP_ZYX[2] + 20)
    hu = cut_batch(store.scans, many.take(slice(0, BATCH)), large, masks=False).hu.float()
    same = replace(AugmentSettings.off(), flip=True, shift_mm=2.0, log_scale=0.2, rotate_deg=180.0, noise_hu=50.0)
    same = replace(same, chance=1.0)
    generator = torch.Generator().manual_seed(0)
    pre = store.preprocessing
    task = Candidates(CandidateSettings(), pre.clip_hu, pre.spacing_zyx_mm, CROP_ZYX)
    batch = CandidateBatch(cut_batch(store.scans, many.take(slice(0, BATCH)), CROP_ZYX, masks=False), None, ())
    settings = FitSettings(epochs=1, optimizer="sgd", momentum=0.9, channels_last=True)
    model = NoduleNet()

    def load(crops: CropList) -> tuple[int, int]:
        for start in range(0, len(crops), BATCH):
            made = cut_batch(store.scans, crops.take(slice(start, start + BATCH)), CROP_ZYX, masks=False)
        return len(crops), made.hu.nbytes // len(made)

    def augment(settings: AugmentSettings) -> tuple[int, int]:
        made, _ = apply(
            hu, None, draw(generator, BATCH, settings), spacing_zyx_mm=pre.spacing_zyx_mm, shape_zyx=CROP_ZYX
        )
        return len(made), made[0].nbytes

    def step(precision: Precision) -> tuple[int, int]:
        fit(task, model, Batches(STEPS, lambda *_: batch), settings=replace(settings, precision=precision))
        return STEPS * BATCH, batch.crops.hu[0].nbytes

    return {
        "warm loader": lambda: load(warm),
        "same, uncompressed": lambda: load(warm),
        "random access": lambda: load(many),
        "augmentation": lambda: augment(same),
        "all changes": lambda: augment(AugmentSettings()),
        "training step": lambda: step("fp32"),
        "same, precision auto": lambda: step("auto"),
    }


def monai(folder: Path) -> Workloads:
    """MONAI's way, see ``benchmarks.monai_data``; its training step is PyTorch's, as the textbook's."""
    import torch

    from benchmarks import monai_data

    paths = sorted((folder / "store").glob("*/hu.npy"))
    warm = monai_data.warm_loader(paths[:2], 240, CROP_ZYX, BATCH)
    order = list(range(4))
    cache = folder / "monai"
    disk = monai_data.disk_loader(paths, order, CROP_ZYX, len(order), cache)
    for _ in disk:
        pass
    transform = monai_data.augmentation(CROP_ZYX)
    crops = torch.randn(BATCH, 1, *CROP_ZYX) * 200 - 500

    def load(loader: Any) -> tuple[int, int]:
        made = [(len(batch["image"]), batch["image"][0].nbytes) for batch in loader]
        return sum(n for n, _ in made), made[0][1]

    def augment() -> tuple[int, int]:
        made = monai_data.changed(transform, crops)
        return len(made), made[0].nbytes

    return {"warm loader": lambda: load(warm), "random access": lambda: load(disk), "augmentation": augment}


SIDES = {"textbook": textbook, "monai": monai, "carina": carina}


def serve(side: str, folder: Path, pipe: Connection) -> None:
    """Set a side up, then do what the pipe asks for: (samples per processor second, bytes of a sample)."""
    import torch

    torch.set_num_threads(1)
    workloads = SIDES[side](folder)
    pipe.send(sorted(workloads))
    while (name := pipe.recv()) is not None:
        start = time.process_time()
        samples, size = workloads[name]()
        pipe.send((samples / (time.process_time() - start), size))


def measure(folder: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """All rows, with the sides taking turns: row to side to median and bytes of a sample."""
    context = multiprocessing.get_context("spawn")
    pipes, known, workers = {}, {}, []
    for side in SIDES:
        if side == "monai" and find_spec("monai") is None:
            continue
        pipes[side], theirs = context.Pipe()
        workers.append(context.Process(target=serve, args=(side, folder, theirs), daemon=True))
        workers[-1].start()
        theirs.close()  # so that a side that fails is noticed
        known[side] = pipes[side].recv()
    result: dict[str, dict[str, dict[str, Any]]] = {}
    for name, (_, _, rounds) in {**ROWS, "all changes": ("", 0.0, 3)}.items():
        speeds: dict[str, list[tuple[float, int]]] = {side: [] for side in pipes if name in known[side]}
        for _ in range(rounds + 1):
            for side, kept in speeds.items():
                pipes[side].send(name)
                kept.append(pipes[side].recv())
        # The first round warms up.
        result[name] = {
            side: {
                "per_second": statistics.median(speed for speed, _ in kept[1:]),
                "bytes": kept[-1][1],
            }
            for side, kept in speeds.items()
        }
    for pipe in pipes.values():
        pipe.send(None)
    for worker in workers:
        worker.join()
    return result


def table(result: dict[str, dict[str, dict[str, Any]]]) -> str:
    """The figures as Markdown."""
    header = ("samples per processor second", *SIDES.keys(), "against the textbook", "asked for", "against MONAI")
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for name, (what, least, _) in ROWS.items():
        sides = result[name]
        own = sides["carina"]["per_second"]
        ratios = {side: own / figures["per_second"] for side, figures in sides.items()}
        asked = f"{least:g}" + ("" if ratios["textbook"] >= least else " (missed)") if least else ""
        shown = [f"{sides[side]['per_second']:,.1f}" if side in sides else "" for side in SIDES]
        against = f"{ratios['monai']:,.1f}" if "monai" in ratios else ""
        lines.append(f"| {name}: {what} | {' | '.join(shown)} | **{ratios['textbook']:,.1f}** | {asked} | {against} |")
    sizes = ", ".join(f"{side} {figures['bytes']:,}" for side, figures in result["warm loader"].items())
    every = result["all changes"]["carina"]["per_second"]
    machine = f"{platform.processor() or platform.machine()}, {platform.system()}, Python {platform.python_version()}"
    return "\n".join(
        [
            *lines,
            "",
            f"Bytes of a warm crop: {sizes}.",
            f"With all of Carina's changes, thicker slices, kernels and grain too: {every:,.1f} crops per second.",
            "MONAI has no training step of its own.",
            f"One thread of {machine}; medians of rounds in which the sides take turns.",
            "The machine was shared with other work: read the ratios, not the speeds.",
        ]
    )


def run() -> str:
    """Measure everything; the figures as Markdown."""
    with tempfile.TemporaryDirectory() as scratch:
        write_data(Path(scratch))
        return table(measure(Path(scratch)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, help="file for the table")
    output = parser.parse_args().output
    text = run()
    print(text)
    if output is not None:
        output.write_text(text + "\n")


if __name__ == "__main__":
    main()
