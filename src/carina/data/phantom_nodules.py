"""Nodules, and what only looks like one, for the synthetic thorax: their shapes, their HU and where they sit.

Shapes are signed distances in mm, so that the part of every voxel that a nodule covers follows from supersampling.
Must not know the anatomy beyond the depth below the pleura, scanners or files.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32

NoduleType = Literal["solid", "part-solid", "ground-glass", "calcified"]
Form = Literal["round", "lobulated", "spiculated", "band"]
Place = Literal["free", "pleural", "vascular"]

TYPES: tuple[NoduleType, ...] = ("solid", "part-solid", "ground-glass", "calcified")
TYPE_SHARES = (0.64, 0.13, 0.15, 0.08)


@dataclass(frozen=True)
class Lesion:
    """One nodule, or one band of scar, about its own centre.

    Attributes:
        type: how dense it is.
        form: outline.
        radius_mm: radius of the sphere of the same volume as its body.
        stretch: 3 x 3, turns an offset in mm into one in which the body is a unit star.
        bumps: directions of the lobes.
        heights: their heights, share of the radius.
        widths: their sharpness; larger is narrower.
        spikes: ends of the spicules, mm from the centre.
        spike_mm: radius of the spicules where they leave the body.
        hu: HU of the body.
        core_hu: HU of the core of a part-solid nodule.
        core_share: radius of that core, share of the nodule's.
    """

    type: NoduleType
    form: Form
    radius_mm: float
    stretch: Float[np.ndarray, "3 3"]
    bumps: Float[np.ndarray, "bumps 3"]
    heights: Float[np.ndarray, " bumps"]
    widths: Float[np.ndarray, " bumps"]
    spikes: Float[np.ndarray, "spikes 3"]
    spike_mm: float
    hu: float
    core_hu: float = 0.0
    core_share: float = 0.0

    @property
    def reach_mm(self) -> float:
        """Radius of a ball about the centre that holds all of it."""
        longest = float(1 / np.linalg.svd(self.stretch, compute_uv=False).min())
        body = longest * (1 + float(self.heights.clip(0).sum()) * 0.6)
        return max(body, float(np.linalg.norm(self.spikes, axis=1).max(initial=0.0))) + 1.0

    def inside(self, offset_zyx_mm: Float32[np.ndarray, "n 3"], shrink: float = 1.0) -> Float32[np.ndarray, " n"]:
        """Signed distance to the surface (mm, positive inside) at offsets from the centre.

        Args:
            offset_zyx_mm: positions relative to the centre, mm.
            shrink: size of the body relative to the whole, for the core; below 1 the spicules are left out.
        """
        turned = offset_zyx_mm @ (self.stretch / shrink).astype(np.float32)
        rho = np.linalg.norm(turned, axis=1) + 1e-6
        surface = np.ones_like(rho)
        if len(self.bumps):
            cosine = (turned / rho[:, None]) @ self.bumps.T.astype(np.float32)
            surface += np.exp(self.widths.astype(np.float32) * (cosine - 1)) @ self.heights.astype(np.float32)
        # A step of 1 mm along the offset changes rho by rho / |offset|: that turns the excess into mm.
        distance = (surface - rho) * np.linalg.norm(offset_zyx_mm, axis=1) / rho
        near = rho < 0.2
        distance[near] = self.radius_mm * 0.5 * shrink
        if shrink >= 1:
            for spike in self.spikes.astype(np.float32):
                along = np.clip(offset_zyx_mm @ spike / (spike @ spike), 0, 1)
                aside = np.linalg.norm(offset_zyx_mm - along[:, None] * spike, axis=1)
                distance = np.maximum(distance, self.spike_mm * (1.25 - along) - aside)
        return np.asarray(distance, np.float32)


def _directions(rng: np.random.Generator, n: int) -> Float[np.ndarray, "n 3"]:
    vectors = rng.standard_normal((n, 3))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def _fit_volume(
    radius_mm: float, axes: np.ndarray, bumps: np.ndarray, heights: np.ndarray, widths: np.ndarray
) -> float:
    """Scale of the unit star whose volume is that of a sphere of ``radius_mm``."""
    i = np.arange(600) + 0.5
    polar, turn = np.arccos(1 - 2 * i / 600), np.pi * (1 + 5**0.5) * i
    ray = np.stack([np.cos(polar), np.sin(polar) * np.cos(turn), np.sin(polar) * np.sin(turn)], 1)
    star = 1 + np.exp(widths * (ray @ bumps.T - 1)) @ heights if len(bumps) else np.ones(len(ray))
    return float(radius_mm / (np.mean(star**3) * np.prod(axes)) ** (1 / 3))


def draw_diameter(rng: np.random.Generator) -> float:
    """Draw a diameter of 3 to 30 mm; most nodules are small."""
    if rng.random() < 0.5:
        return float(np.clip(3 + rng.gamma(1.7, 2.6), 3.1, 30))
    return float(np.exp(rng.uniform(np.log(3.3), np.log(30))))


def draw_nodule(rng: np.random.Generator, diameter_mm: float) -> Lesion:
    """Draw type, form and HU of a nodule of the given equivalent diameter."""
    kind = TYPES[int(rng.choice(4, p=TYPE_SHARES))]
    if diameter_mm < 6 and kind == "part-solid":
        kind = "solid"
    share = (0.5, 0.35, 0.15) if diameter_mm < 8 else (0.3, 0.4, 0.3)
    form: Form = "round" if kind == "calcified" else ("round", "lobulated", "spiculated")[int(rng.choice(3, p=share))]
    n = {"round": 5, "lobulated": int(rng.integers(4, 9)), "spiculated": int(rng.integers(8, 14))}[form]
    bumps = _directions(rng, n)
    heights = {
        "round": rng.uniform(-0.08, 0.08, n),
        "lobulated": rng.uniform(0.3, 0.6, n),
        "spiculated": rng.uniform(-0.2, 0.45, n),
    }[form]
    widths = rng.uniform(3.0, 9.0, n) if form == "round" else rng.uniform(6.0, 14.0, n)
    axes = np.exp(rng.normal(0, 0.13, 3))
    radius = diameter_mm / 2
    scale = _fit_volume(radius, axes, bumps, heights, widths)
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    spikes = np.zeros((0, 3))
    if form == "spiculated":
        n_spikes = int(min(8 + 2.5 * radius, 36) * rng.uniform(0.7, 1.2))
        spikes = _directions(rng, n_spikes) * (radius * rng.uniform(1.3, 2.0, (n_spikes, 1)))
    body = {
        "solid": float(np.clip(rng.normal(20, 70), -150, 140)),
        "part-solid": rng.uniform(-650, -400),
        "ground-glass": rng.uniform(-690, -420),
        "calcified": rng.uniform(230, 800),
    }[kind]
    return Lesion(
        kind, form, radius, turn / (axes * scale), bumps, heights, widths, spikes,
        spike_mm=float(np.clip(0.1 * radius + 0.25, 0.4, 1.3)), hu=body,
        core_hu=float(rng.uniform(-60, 60)), core_share=float(rng.uniform(0.35, 0.65)) if kind == "part-solid" else 0.0,
    )  # fmt: skip


def draw_band(rng: np.random.Generator) -> Lesion:
    """Draw a flat scar: dense like a nodule in one slice, a plate in three dimensions."""
    axes = np.array([rng.uniform(6, 16), rng.uniform(3, 8), rng.uniform(0.5, 1.0)])
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    none = np.zeros((0, 3))
    return Lesion("solid", "band", float(np.prod(axes) ** (1 / 3)), turn / axes, none, np.zeros(0), np.zeros(0), none,
                  spike_mm=0.0, hu=float(rng.uniform(-250, 40)))  # fmt: skip


def draw_plaque(rng: np.random.Generator) -> Lesion:
    """Draw a flat thickening to be laid on the pleura: broad, 2 to 4 mm high."""
    axes = np.array([rng.uniform(1.5, 2.6), rng.uniform(7, 14), rng.uniform(6, 12)])
    none = np.zeros((0, 3))
    return Lesion("solid", "band", float(np.prod(axes) ** (1 / 3)), np.diag(1 / axes), none, np.zeros(0), np.zeros(0),
                  none, spike_mm=0.0, hu=float(rng.uniform(10, 90)))  # fmt: skip
