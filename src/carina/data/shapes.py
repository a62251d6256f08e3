"""Shapes of real nodules: a small atlas of outlines that radiologists drew, as signed distances.

An atlas holds outlines of LIDC-IDRI nodules scaled to the same volume, without any image. Each patient belongs to
either the training or the test part, so that a network never meets a test shape in training.
``carina.data.lidc_outlines`` builds the atlas.

Must not know CT volumes or how shapes are drawn into them (``carina.data.insert``).
"""

import json
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64, UInt8
from scipy import ndimage

from carina.errors import InputError
from carina.replacing import replacing

Split = Literal["train", "test"]

SIDE = 40
"""Voxels along each edge of a shape's cube."""

VOXELS_PER_DIAMETER = 17.0
"""Voxels that the equivalent diameter of a shape spans in its cube."""

_DAMAGE = (OSError, ValueError, KeyError, TypeError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error)
"""What NumPy and its zip archive raise where a file was cut short, has wrong bytes or is something else."""

SHIPPED = Path(__file__).with_name("shapes.npz")


@dataclass(frozen=True, eq=False)
class ShapeAtlas:
    """Outlines of nodules, normalised to the same volume, and what readers said about them.

    Attributes:
        masks: one row per shape, its cube of ``SIDE`` voxels a side, packed to bits in C order.
        diameter_mm: equivalent diameter of each nodule as outlined.
        spiculation: the reader's rating, 1 (none) to 5 (marked).
        lobulation: the reader's rating, 1 (none) to 5 (marked).
        texture: the reader's rating, 1 (ground glass) to 5 (solid).
        patient_ids: the patient of each shape.
        about: source, licence, attribution and how the atlas was made.
    """

    masks: UInt8[np.ndarray, "n bytes"]
    diameter_mm: Float32[np.ndarray, "n"]
    spiculation: UInt8[np.ndarray, "n"]
    lobulation: UInt8[np.ndarray, "n"]
    texture: UInt8[np.ndarray, "n"]
    patient_ids: tuple[str, ...]
    about: dict[str, Any]

    def __len__(self) -> int:
        return len(self.patient_ids)

    def mask(self, index: int) -> Bool[np.ndarray, "z y x"]:
        """The outline of shape ``index`` in its cube, True inside."""
        bits = np.unpackbits(self.masks[index], count=SIDE**3)
        return bits.reshape(SIDE, SIDE, SIDE).astype(bool)

    def signed_distance(
        self, index: int, offset_mm: Float[np.ndarray, "*points 3"], diameter_mm: float
    ) -> Float32[np.ndarray, "*points"]:
        """Distance to the surface of shape ``index`` scaled to ``diameter_mm``, positive inside.

        Args:
            index: which shape.
            offset_mm: points relative to the shape's centre of mass, in mm along the shape's own axes.
            diameter_mm: diameter of the sphere that has the volume of the scaled shape.

        Returns:
            Distances in mm; far outside the cube they keep growing with the distance from it.
        """
        step_mm = diameter_mm / VOXELS_PER_DIAMETER
        index_zyx = offset_mm / step_mm + (SIDE - 1) / 2
        inside = np.clip(index_zyx, 0, SIDE - 1)
        distance = ndimage.map_coordinates(
            self._distance(index), np.moveaxis(inside, -1, 0), order=1, output=np.float32
        )
        beyond = np.linalg.norm(index_zyx - inside, axis=-1)
        return np.asarray((distance - beyond) * step_mm, np.float32)

    def _distance(self, index: int) -> Float32[np.ndarray, "z y x"]:
        return _signed_distance(self.masks[index].tobytes())

    def split(self, part: Split) -> "ShapeAtlas":
        """The shapes of the patients of one part."""
        chosen = self.about["split"][part]
        return self.take(np.flatnonzero(np.isin(self.patient_ids, chosen)))

    def take(self, rows: Int64[np.ndarray, "m"]) -> "ShapeAtlas":
        """The atlas of these rows only."""
        return ShapeAtlas(
            self.masks[rows],
            self.diameter_mm[rows],
            self.spiculation[rows],
            self.lobulation[rows],
            self.texture[rows],
            tuple(self.patient_ids[i] for i in rows),
            self.about,
        )

    def save(self, path: Path) -> None:
        """Write the atlas, replacing ``path`` only once complete."""
        about = self.about | {"patient_ids": list(self.patient_ids)}
        with replacing(path) as draft, draft.open("wb") as file:
            np.savez_compressed(
                file,
                masks=self.masks,
                diameter_mm=self.diameter_mm,
                spiculation=self.spiculation,
                lobulation=self.lobulation,
                texture=self.texture,
                about=np.array(json.dumps(about)),
            )


def load_shapes(path: Path | None = None) -> ShapeAtlas:
    """Read an atlas; the one that ships with Carina where no path is given.

    Raises:
        InputError: no such file, or not an atlas of shapes.
    """
    path = path or SHIPPED
    try:
        # NumPy leaves a file open that it opened itself and that turns out to be no archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            about = json.loads(str(stored["about"]))
            return ShapeAtlas(
                stored["masks"],
                stored["diameter_mm"],
                stored["spiculation"],
                stored["lobulation"],
                stored["texture"],
                tuple(about.pop("patient_ids")),
                about,
            )
    except FileNotFoundError:
        raise InputError(f"no shape atlas at {path}; `carina atlas` builds one") from None
    except _DAMAGE as error:
        raise InputError(f"{path} is not a shape atlas: {error}") from error


@lru_cache(maxsize=2048)
def _signed_distance(packed: bytes) -> Float32[np.ndarray, "z y x"]:
    """Signed distance of a packed mask in voxels, smoothed to undo the staircase of its voxels."""
    bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=SIDE**3)
    mask = np.pad(bits.reshape(SIDE, SIDE, SIDE).astype(bool), 1)
    distance: Float64[np.ndarray, "z y x"] = ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(
        ~mask
    )
    distance -= 0.5 * np.sign(distance)
    return np.asarray(ndimage.gaussian_filter(distance, 0.9)[1:-1, 1:-1, 1:-1], np.float32)
