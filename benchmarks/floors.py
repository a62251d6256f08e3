"""What the machine's arithmetic and memory allow for each stage of the main job, and how far from it each stage is.

    python -m benchmarks.floors [--scan CT] [--weights FOLDER] [--runtime NAME] [-o PAGE]

One thread. The floor of a network is its multiplications and additions at the speed at which this core multiplies large
float32 matrices; that of grouping is one read of the map of probabilities. The last column is the largest ratio against
the textbook's way (batches of four in eager PyTorch) that any float32 program could reach here with the same work.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import textbook as way
from benchmarks.detect import FEWEST_VOXELS, on_own_grid, weights_folder

MATRIX = 2048
READ_BYTES = 1 << 29


def least(work: Callable[[], Any], repeats: int = 5) -> float:
    """The smallest processor seconds of some calls, after one that warms up."""
    work()
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return min(seconds)


def machine() -> tuple[float, float]:
    """Float32 operations per second of one core in a large matrix product, and bytes per second that it reads."""
    a = torch.randn(MATRIX, MATRIX)
    operations = 2 * MATRIX**3 / least(lambda: a @ a)
    much = torch.ones(READ_BYTES // 4)
    return operations, READ_BYTES / least(much.sum)


def operations(network: torch.nn.Module, example: torch.Tensor) -> float:
    """Multiplications and additions of one call."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(example)
    return float(counter.get_total_flops())


def counted_voxels(volume: Any, inside: np.ndarray, network: Any) -> int:
    """Voxels of all windows that ``segment`` gives to its network."""
    from carina.pipeline.segment import segment

    seen = 0

    def compute(batch: np.ndarray) -> np.ndarray:
        nonlocal seen
        seen += batch[:, 0].size
        return np.zeros_like(batch[:, :1])

    segment(volume.hu, replace(network, compute=compute), inside=inside)
    return seen


def run(args: argparse.Namespace | None = None) -> str:
    """The table as Markdown."""
    args = args or arguments([])
    torch.set_num_threads(1)
    from carina.data.phantom import make_phantom
    from carina.io import read_ct
    from carina.models.card import load_model
    from carina.pipeline.detector import Detector
    from carina.pipeline.group import group
    from carina.pipeline.segment import segment

    folder = weights_folder(args.weights)
    volume = read_ct(args.scan) if args.scan else make_phantom(1, nodules=4, slice_thickness_mm=2.5).volume
    models = Detector.load(args.weights, runtime=args.runtime)
    assert models.classifier is not None
    rate, bandwidth = machine()
    lines = []

    def row(name: str, work: str, floor: float, textbook: float, own: float) -> None:
        cells = [name, work, f"{floor:.3g}", f"{textbook:.3g} ({textbook / floor:.1f} x)"]
        cells += [f"{own:.3g} ({own / floor:.1f} x)", f"{textbook / own:.1f}", f"{textbook / floor:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")

    unet, card = load_model(folder / "segmentation")
    channels, (slices, *plane) = int(card.spec["in_channels"]), volume.hu.shape
    inside = on_own_grid(volume).lung
    per_pixel = operations(unet, torch.zeros(1, channels, 64, 64)) / 64**2
    windows = counted_voxels(volume, inside, models.segmenter)
    few = min(way.BATCH, slices)
    hu = volume.hu[:few].astype(np.float32)
    whole = least(lambda: way.segment(hu, unet, channels, card.preprocessing.clip_hu), 2) * slices / few
    own = least(lambda: segment(volume.hu, models.segmenter, inside=inside), 1)
    work = f"{windows / volume.hu.size:.0%} of the pixels: {windows * per_pixel / 1e9:.0f} GFLOP"
    row("segment", f"{work} of {volume.hu.size * per_pixel / 1e9:.0f}", windows * per_pixel / rate, whole, own)

    probability = segment(volume.hu, models.segmenter, inside=inside)
    options = {"threshold": card.threshold, "min_volume_mm3": FEWEST_VOXELS * volume.geometry.voxel_volume_mm3}
    whole = least(lambda: way.group(probability, inside, card.threshold, FEWEST_VOXELS), 1)
    own = least(lambda: group(probability, inside, volume.geometry, **options))
    read = probability.nbytes
    row("group", f"reads the map once: {read / 1e6:.0f} MB", read / bandwidth, whole, own)

    nodule, card = load_model(folder / "nodule")
    shape = card.preprocessing.crop_zyx
    crops = np.random.default_rng(0).normal(0, 0.3, (way.BATCH, 1, *shape)).astype(np.float32)
    tensor = torch.from_numpy(crops)
    each = operations(nodule, tensor) / way.BATCH
    with torch.no_grad():
        whole = least(lambda: nodule(tensor), 20) / way.BATCH
    classifier = models.classifier
    own = least(lambda: classifier(crops), 20) / way.BATCH
    row("classify, per crop", f"{each / 1e9:.2f} GFLOP", each / rate, whole, own)
    head = (
        f"CT of {slices} x {plane[0]} x {plane[1]} voxels. One core multiplies large float32 matrices at "
        f"{rate / 1e9:.0f} GFLOP/s and reads memory at {bandwidth / 1e9:.1f} GB/s. Processor seconds; in brackets how "
        f"many times the floor. {models.classifier.runtime}."
    )
    columns = ("stage", "work", "floor", "textbook", "Carina", "ratio", "largest possible")
    return "\n".join([head, "", f"| {' | '.join(columns)} |", "|" + "---|" * len(columns), *lines])


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scan", type=Path, help="any CT that Carina reads; default: a phantom")
    parser.add_argument("--weights", type=Path, help="folder of weights; default: the shipped ones")
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("-o", "--output", type=Path, help="write the table to this file too")
    return parser.parse_args(words)


if __name__ == "__main__":
    asked = arguments()
    page = run(asked)
    print(page)
    if asked.output:
        asked.output.write_text(page + "\n")
