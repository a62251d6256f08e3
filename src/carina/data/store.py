"""The prepared store: scans on the analysis grid as memory maps, ready for crops at random.

    STORE/manifest.json          what the store holds: settings and one record per scan; written last, atomically
    STORE/KEY/hu.npy             int16 HU
    STORE/KEY/label.npy          uint8: 0 background, k = `label` of a nodule, 255 = ignore
    STORE/KEY/lung.npy           uint8: 1 in the lungs
    STORE/KEY/negatives.npy      float32 (n, 3): places that look like nodules and are none
    STORE/KEY/lung_points.npy    int16 (n, 3): places drawn evenly from the lungs
    STORE/KEY/scan.json          the scan's record

``KEY`` hashes the sources and the settings. A folder of that name is complete: it was renamed into place.
Opening a store reads the manifest only, so memory does not grow with the cohort.

Must not know how scans are prepared (``data.prepare``), networks or torch.
"""

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from jaxtyping import Float32, Int16, UInt8

from carina.ct.preprocess import Preprocessing
from carina.errors import InputError
from carina.geometry import Geometry, Shape3, Vector3
from carina.replacing import replacing

FORMAT = 1
"""Version of the layout above; part of every key."""

MANIFEST = "manifest.json"
RECORD = "scan.json"

NoduleType = Literal["solid", "part-solid", "ground-glass", "calcified", "unknown"]


@dataclass(frozen=True)
class Nodule:
    """A nodule of a prepared scan.

    Attributes:
        label: its value in the label map, 1 to ``MOST_NODULES`` (``carina.io.luna``).
        center_zyx: fractional index on the scan's grid.
        diameter_mm: as annotated.
        volume_mm3: as annotated, else of its voxels in the label map.
        type: what it is made of.
        malignancy: 1.0 malignant, 0.0 benign, None where nobody said or the readers were undecided.
        reader_malignancy: the readers' ratings, 1 (unlikely) to 5 (likely); empty where none are known.
    """

    label: int
    center_zyx: Vector3
    diameter_mm: float
    volume_mm3: float
    type: NoduleType = "unknown"
    malignancy: float | None = None
    reader_malignancy: tuple[int, ...] = ()


@dataclass(frozen=True)
class Scan:
    """One prepared scan; arrays are mapped when first asked for.

    Attributes:
        key: hash of source and settings; the name of its folder.
        series_uid: SeriesInstanceUID, or the file's name where there is none.
        patient_id: what splits go by; the series UID where the patient is not known.
        origin: where the scan comes from, as the cohort says (``phantom``, the name of a background), or "".
        subset: number of the LUNA16 subset it lies in, None outside of such a layout.
        slice_thickness_mm: of the source.
        lung_litres: volume of the lungs.
        shape_zyx: shape of the prepared arrays.
        affine: of the prepared grid, row by row.
        nodules: the nodules in the box.
        warnings: what was put right or left out, in words.
        background_uid: series UID of the real CT that a synthetic scan was made from, "" for others.
        folder: where the arrays lie.
    """

    key: str
    series_uid: str
    patient_id: str
    origin: str
    subset: int | None
    slice_thickness_mm: float
    lung_litres: float
    shape_zyx: Shape3
    affine: tuple[tuple[float, float, float, float], ...]
    nodules: tuple[Nodule, ...]
    warnings: tuple[str, ...] = ()
    background_uid: str = ""
    folder: str = ""

    @cached_property
    def geometry(self) -> Geometry:
        """Where the voxels lie in the patient."""
        return Geometry(self.shape_zyx, np.array(self.affine, np.float64))

    def hu(self) -> Int16[np.ndarray, "z y x"]:
        """HU, unclipped; a read-only memory map."""
        return self._hu

    def label(self) -> UInt8[np.ndarray, "z y x"]:
        """0 background, k the nodule with that ``label``, 255 ignore; a read-only memory map."""
        return self._label

    def label_at(self, points_zyx: np.ndarray) -> UInt8[np.ndarray, " n"]:
        """Labels of the voxels next to points [n 3]; 0 outside the grid."""
        index = np.rint(points_zyx).astype(np.int64).reshape(-1, 3)
        inside = ((index >= 0) & (index < self.shape_zyx)).all(axis=1)
        found = np.zeros(len(index), np.uint8)
        found[inside] = self.label()[tuple(index[inside].T)]
        return found

    def lung(self) -> UInt8[np.ndarray, "z y x"]:
        """1 in the lungs, else 0; a read-only memory map."""
        return self._lung

    @cached_property
    def negatives(self) -> Float32[np.ndarray, "n 3"]:
        """Centres (index on the grid) of what looks like a nodule and is none."""
        return np.array(self._open("negatives.npy"))

    @cached_property
    def lung_points(self) -> Int16[np.ndarray, "n 3"]:
        """Voxels drawn evenly from the lungs when the scan was prepared."""
        return np.array(self._open("lung_points.npy"))

    @cached_property
    def free_points(self) -> Int16[np.ndarray, "n 3"]:
        """Those of ``lung_points`` that lie neither on a nodule nor on what is to be ignored."""
        points = self.lung_points
        return np.asarray(points[self.label_at(points) == 0])

    @cached_property
    def _hu(self) -> np.ndarray:
        return self._open("hu.npy")

    @cached_property
    def _label(self) -> np.ndarray:
        return self._open("label.npy")

    @cached_property
    def _lung(self) -> np.ndarray:
        return self._open("lung.npy")

    def _open(self, name: str) -> np.ndarray:
        path = Path(self.folder) / name
        try:
            # A plain view of the map: slicing an np.memmap costs several times as much.
            return np.asarray(np.load(path, mmap_mode="r").view(np.ndarray))
        except (OSError, ValueError, EOFError) as error:  # EOFError: an empty file
            raise InputError(f"cannot read {path} of the prepared store: {error}; prepare it again") from error

    def __getstate__(self) -> dict[str, object]:
        """Maps are opened anew in another process."""
        return {f: getattr(self, f) for f in self.__dataclass_fields__}

    def to_json(self) -> bytes:
        """The record as JSON, without the folder."""
        return msgspec.json.format(msgspec.json.encode(replace(self, folder="")), indent=1)

    @classmethod
    def from_folder(cls, folder: Path) -> "Scan":
        """Read one scan's record.

        Raises:
            InputError: no record of this version.
        """
        try:
            record = msgspec.json.decode((folder / RECORD).read_bytes(), type=cls)
        except (OSError, ValueError) as error:  # other JSON, or bytes that are not UTF-8
            raise InputError(f"{folder} holds no prepared scan of this version: {error}") from error
        return replace(record, folder=str(folder))


@dataclass(frozen=True)
class Manifest:
    """What ``manifest.json`` holds.

    Attributes:
        format: version of the store's layout.
        preprocessing: settings under which every scan was prepared.
        scans: one record per scan, by series UID.
        failed: series UID or path to the reason, for scans that could not be prepared.
    """

    format: int
    preprocessing: Preprocessing
    scans: tuple[Scan, ...]
    failed: dict[str, str]


class Store:
    """A prepared store, opened for reading.

    Attributes:
        folder: where it lies.
        preprocessing: settings under which it was prepared.
        scans: one per series.
        failed: what could not be prepared, and why.
    """

    def __init__(self, folder: str | Path) -> None:
        """Open a store.

        Raises:
            InputError: not a finished store, or one of another version.
        """
        self.folder = Path(folder)
        path = self.folder / MANIFEST
        try:
            manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
        except FileNotFoundError:
            raise InputError(
                f"{folder} is no finished prepared store (no {MANIFEST}); run `carina prepare DATA -o {folder}` "
                "(again, if it was stopped: it goes on where it was)"
            ) from None
        except (OSError, ValueError) as error:  # other JSON, or bytes that are not UTF-8
            raise InputError(f"cannot read {path}: {error}; run `carina prepare` again") from error
        if manifest.format != FORMAT:
            raise InputError(
                f"{folder} was prepared in format {manifest.format}, this Carina reads {FORMAT}; prepare it again"
            )
        self.preprocessing = manifest.preprocessing
        self.failed = manifest.failed
        self.scans = [replace(scan, folder=str(self.folder / scan.key)) for scan in manifest.scans]

    def __len__(self) -> int:
        return len(self.scans)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest in one step; readers see the old one or the new one."""
    manifest = replace(manifest, scans=tuple(replace(scan, folder="") for scan in manifest.scans))
    body = json.loads(msgspec.json.encode(manifest))
    with replacing(folder / MANIFEST, durable=True) as draft:
        draft.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
