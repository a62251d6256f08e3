"""How far measurements can be trusted: sizes of bodies of known size, measured by ``carina.ct.measure``.

    python -m benchmarks.measurements            # writes the tables of docs/reference/measurements.md

Balls are put at random places between voxels, averaged over slices, and blurred and made noisy as the synthetic
scanner of the phantoms does it. Each is measured within two outlines: the voxels that it fills at least half, and a
careless one whose radius and place are off. Nodules of whole phantoms show what vessels, walls and odd shapes add.
Everything follows from fixed seeds.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from carina.ct.measure import measure
from carina.data.phantom import make_phantom
from carina.data.phantom_scanner import Detector, Protocol
from carina.geometry import Geometry
from carina.volume import Volume

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "measurements.md"

LUNG_HU = -850.0
PIXEL_MM = 0.7
CARELESS_RADIUS_MM = 0.75
CARELESS_PLACE_MM = 0.5


def ball(
    rng: np.random.Generator, diameter_mm: float, thickness_mm: float, noise_hu: float, tissue_hu: float
) -> tuple[Volume, np.ndarray, np.ndarray]:
    """A scanned ball, the voxels it half fills, and a careless outline of it."""
    spacing = np.array([thickness_mm, PIXEL_MM, PIXEL_MM])
    shape = np.ceil((diameter_mm + 16) / spacing).astype(int) // 2 * 2 + 1
    shape[1:] = shape[1:].max()
    center = (shape - 1) / 2 + rng.uniform(-0.5, 0.5, 3)
    fine = np.ceil(spacing / 0.35).astype(int)
    inside = distance_mm(shape, spacing, center, fine) <= diameter_mm / 2
    parts = [m for n, k in zip(shape, fine, strict=True) for m in (n, k)]
    share = inside.reshape(parts).mean(axis=(1, 3, 5), dtype=np.float32)
    side = int(shape[1])
    protocol = Protocol(PIXEL_MM, side, thickness_mm, 1, int(shape[0]), "soft", noise_hu, (0.0, 0.0, 0.0))
    scanner = Detector(protocol, np.ones((side, side), np.float32))
    hu = np.stack([scanner.expose(rng, LUNG_HU + (tissue_hu - LUNG_HU) * plane) for plane in share])
    volume = Volume(np.rint(hu).astype(np.int16), Geometry.from_axes(tuple(shape.tolist()), spacing_zyx_mm=spacing))
    moved = center + rng.uniform(-1, 1, 3) * CARELESS_PLACE_MM / spacing
    radius = diameter_mm / 2 + rng.uniform(-1, 1) * CARELESS_RADIUS_MM
    careless = distance_mm(shape, spacing, moved, np.ones(3, int)) <= radius
    return volume, share >= 0.5, careless


def distance_mm(shape: np.ndarray, spacing: np.ndarray, center: np.ndarray, fine: np.ndarray) -> np.ndarray:
    """Distance of the points of a grid, ``fine`` times as fine as the voxels, from a fractional voxel index."""
    lines = [
        (((np.arange(n * k) + 0.5) / k - 0.5 - c) * mm).astype(np.float32)
        for n, k, c, mm in zip(shape, fine, center, spacing, strict=True)
    ]
    z, y, x = np.ix_(*lines)
    return np.sqrt(z**2 + y**2 + x**2)


def errors(volume: Volume, outline: np.ndarray, diameter_mm: float) -> tuple[float, float, float] | None:
    """Error of the mean axis in mm, of the corrected and of the counted volume in percent; None without a voxel."""
    if not outline.any():
        return None
    size = measure(volume, outline.astype(np.uint8))[1]
    true_mm3 = np.pi / 6 * diameter_mm**3
    counted_mm3 = outline.sum() * volume.geometry.voxel_volume_mm3
    return (
        size.mean_axis_mm - diameter_mm,
        100 * (size.volume_mm3 / true_mm3 - 1),
        100 * (counted_mm3 / true_mm3 - 1),
    )


def ball_rows(repeats: int, tissue_hu: float, diameters: Sequence[float], noises: Sequence[float]) -> Iterator[str]:
    """One line of the table per size, slice thickness and noise."""
    yield (
        "| diameter | slices | noise | mean axis (mm), exact | careless | volume (%), exact | careless "
        "| counted voxels (%), exact | careless |"
    )
    yield "|" + "---:|" * 9
    for diameter_mm in diameters:
        for thickness_mm in (1.0, 2.5, 5.0):
            for noise_hu in noises:
                rng = np.random.default_rng([8, round(10 * diameter_mm), round(10 * thickness_mm), round(noise_hu)])
                exact, careless = [], []
                for _ in range(repeats):
                    volume, half, loose = ball(rng, diameter_mm, thickness_mm, noise_hu, tissue_hu)
                    exact.append(errors(volume, half, diameter_mm))
                    careless.append(errors(volume, loose, diameter_mm))
                cells = [
                    spread([e[k] for e in one if e is not None], 2 if k == 0 else 0)
                    for k in range(3)
                    for one in (exact, careless)
                ]
                yield f"| {diameter_mm:g} mm | {thickness_mm:g} mm | {noise_hu:g} HU | {' | '.join(cells)} |"


def phantom_rows(seeds: Sequence[int]) -> Iterator[str]:
    """One line per place of the nodules of whole phantoms, measured within their true outlines."""
    found = defaultdict(list)
    for seed in seeds:
        for thickness_mm in (1.25, 2.5):
            phantom = make_phantom(seed, nodules=12, slice_thickness_mm=thickness_mm)
            sizes = measure(phantom.volume, phantom.label)
            for nodule in phantom.nodules:
                if nodule.label in sizes and nodule.diameter_mm >= 5:
                    counted = (phantom.label == nodule.label).sum() * phantom.volume.geometry.voxel_volume_mm3
                    kind = "ground-glass" if nodule.type == "ground-glass" else "denser"
                    error = sizes[nodule.label].volume_mm3 / nodule.volume_mm3 - 1
                    found[kind, nodule.place, thickness_mm].append(
                        (100 * error, 100 * (counted / nodule.volume_mm3 - 1))
                    )
    yield "| nodules | place | slices | number | volume (%) | counted voxels (%) |"
    yield "|---|---|---:|---:|---:|---:|"
    for (kind, place, thickness_mm), rows in sorted(found.items()):
        volume, counted = zip(*rows, strict=True)
        yield f"| {kind} | {place} | {thickness_mm:g} mm | {len(rows)} | {spread(volume)} | {spread(counted)} |"


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Mean and standard deviation of errors, as a cell of a table."""
    if not values:
        return "not outlined"
    return f"{round(float(np.mean(values)), digits) + 0.0:+.{digits}f} ± {np.std(values):.{digits}f}"


def put(page: str, name: str, rows: Iterator[str]) -> str:
    """The page with the table called ``name`` replaced."""
    begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
    before, rest = page.split(begin)
    _, after = rest.split(end)
    return before + begin + "\n".join(rows) + "\n" + end + after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--repeats", type=int, default=12, help="balls per line (default: 12)")
    parser.add_argument("--phantoms", type=int, default=2, help="phantoms (default: 2)")
    parser.add_argument("--page", type=Path, default=PAGE, help="page whose tables are replaced")
    arguments = parser.parse_args()
    tables = {
        "solid": ball_rows(arguments.repeats, 30.0, (4, 6, 8, 12, 20), (10, 40)),
        "ground glass": ball_rows(arguments.repeats, -600.0, (8, 12, 20), (20,)),
        "phantoms": phantom_rows(range(100, 100 + arguments.phantoms)),
    }
    for name, rows in tables.items():
        page = put(arguments.page.read_text(encoding="utf-8"), name, rows)
        arguments.page.write_text(page, encoding="utf-8")
        print(f"{arguments.page}: {name} written")


if __name__ == "__main__":
    main()
