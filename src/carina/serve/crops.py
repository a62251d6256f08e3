"""Requests for classification: bytes that claim a shape and a type become checked crops, and numbers become answers.

Must not know HTTP or how batches are made.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64
from scipy.special import softmax

from carina.errors import WeightsError
from carina.findings import RESEARCH_USE
from carina.geometry import Shape3
from carina.hu import normalise
from carina.pipeline import Detector
from carina.serve.problems import ProblemError

NPY = b"\x93NUMPY"
DTYPES: dict[str, np.dtype] = {"int16": np.dtype("<i2"), "float32": np.dtype("<f4")}
"""Types of voxels that are taken, by the name that requests use."""

_LONGEST_HEADER = 10_000

NO_MALIGNANCY = "not answered for crops: a network rates the findings of whole CTs in place of the rule of size"


@dataclass(frozen=True)
class Crops:
    """Crops of one request.

    Attributes:
        hu: the crops in HU.
        diameter_mm: of each nodule; None where it was not given.
        segmentation_score: what the first stage said of each; None where it was not given.
    """

    hu: Float32[np.ndarray, "crops z y x"]
    diameter_mm: tuple[float | None, ...]
    segmentation_score: tuple[float | None, ...]


def body_bytes(crops: int, shape_zyx: Shape3) -> int:
    """The largest body of a request with so many crops."""
    return crops * math.prod(shape_zyx) * 4 + _LONGEST_HEADER


def parse_crops(body: bytes, query: dict[str, str], shape_zyx: Shape3, most: int) -> Crops:
    """Check a request.

    Args:
        body: an ``.npy`` file, or voxels alone with ``dtype`` and ``shape`` in the query; little-endian, C order.
        query: ``dtype`` (int16 or float32), ``shape`` (z,y,x or n,z,y,x), ``diameter_mm`` and ``segmentation_score``
            (one number per crop, separated by commas; an empty place where one is unknown).
        shape_zyx: the shape of a crop that the network takes.
        most: crops in one request.

    Raises:
        ProblemError: anything is not as it must be; the message says what.
    """
    array = _npy(body, shape_zyx, most) if body[:6] == NPY else _raw(body, query, shape_zyx, most)
    hu = array.astype(np.float32)
    if not np.isfinite(hu).all():
        raise ProblemError("invalid", "the crops hold NaN or infinite values; HU are finite numbers")
    diameter = _numbers(query, "diameter_mm", len(hu), 0.1, 500.0)
    score = _numbers(query, "segmentation_score", len(hu), 0.0, 1.0)
    return Crops(hu, diameter, score)


def _npy(body: bytes, shape_zyx: Shape3, most: int) -> np.ndarray:
    file = io.BytesIO(body)
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file, max_header_size=_LONGEST_HEADER)
    except (ValueError, EOFError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ProblemError("invalid", "the .npy header cannot be read") from error
    if fortran or dtype not in DTYPES.values():
        raise ProblemError("invalid", f"an .npy of {dtype}{' in Fortran order' if fortran else ''}; {_wanted()}")
    return _voxels(body[file.tell() :], dtype, shape, shape_zyx, most)


def _raw(body: bytes, query: dict[str, str], shape_zyx: Shape3, most: int) -> np.ndarray:
    if query.get("dtype") not in DTYPES or "shape" not in query:
        raise ProblemError("invalid", f"the body is no .npy, so the query must say dtype and shape; {_wanted()}")
    fields = query["shape"].split(",")
    if not 3 <= len(fields) <= 4 or not all(f.isascii() and f.isdigit() and len(f) < 10 for f in fields):
        raise ProblemError("invalid", "shape must be z,y,x or n,z,y,x in whole numbers")
    return _voxels(body, DTYPES[query["dtype"]], tuple(int(f) for f in fields), shape_zyx, most)


def _voxels(body: bytes, dtype: np.dtype, shape: tuple[int, ...], shape_zyx: Shape3, most: int) -> np.ndarray:
    wanted = ",".join(map(str, shape_zyx))
    if shape[-3:] != shape_zyx or len(shape) not in (3, 4):
        raise ProblemError("invalid", f"shape {','.join(map(str, shape))[:60]}; crops of this network are {wanted}")
    count = 1 if len(shape) == 3 else shape[0]
    if not 1 <= count <= most:
        raise ProblemError("too-large" if count > most else "invalid", f"{count} crops; send 1 to {most} at a time")
    expected = count * math.prod(shape_zyx) * dtype.itemsize
    if len(body) != expected:
        raise ProblemError("invalid", f"{len(body)} bytes of voxels; the shape and type claimed need {expected}")
    return np.frombuffer(body, dtype).reshape(count, *shape_zyx)


def _numbers(query: dict[str, str], name: str, count: int, low: float, high: float) -> tuple[float | None, ...]:
    if name not in query:
        return (None,) * count
    fields = query[name].split(",")
    if len(fields) != count:
        raise ProblemError("invalid", f"{len(fields)} values of {name} for {count} crops")
    try:
        values = tuple(float(field) if field.strip() else None for field in fields)
    except ValueError:
        raise ProblemError("invalid", f"{name} must be numbers separated by commas") from None
    if not all(value is None or low <= value <= high for value in values):
        raise ProblemError("invalid", f"{name} must lie between {low:g} and {high:g}")
    return values


def _wanted() -> str:
    return f"send little-endian {' or '.join(DTYPES)} in C order"


class CropClassifier:
    """The second stage on crops that clients cut.

    Args:
        detector: its models.

    Raises:
        WeightsError: the detector has no second stage.
    """

    def __init__(self, detector: Detector) -> None:
        if detector.classifier is None:
            raise WeightsError("classification of crops needs the nodule network; load weights that have it")
        self._network = detector.classifier
        # The rule must not answer for a network that rates the same nodules of whole CTs otherwise.
        self._malignancy = None if detector.rater else detector.malignancy

    @property
    def shape_zyx(self) -> Shape3:
        """Voxels of a crop."""
        return self._network.card.preprocessing.crop_zyx

    @property
    def card(self) -> dict[str, Any]:
        """What clients must know to cut crops, and which model answers."""
        card = self._network.card
        return {
            "name": card.name,
            "sha256": card.sha256,
            "runtime": self._network.runtime,
            "crop_zyx": card.preprocessing.crop_zyx,
            "spacing_zyx_mm": card.preprocessing.spacing_zyx_mm,
            "malignancy": self._malignancy.summary if self._malignancy else NO_MALIGNANCY,
        }

    def predict(self, crops: Float32[np.ndarray, "crops z y x"]) -> Float64[np.ndarray, " crops"]:
        """The network's probability of a nodule for each crop in HU."""
        logits = self._network(normalise(crops, self._network.card.preprocessing.clip_hu)[:, None])
        return np.asarray(softmax(logits.astype(np.float64), axis=1)[:, 1])

    def answer(self, crops: Crops, classification: Sequence[float]) -> dict[str, Any]:
        """The answer to a request, every number under its right name.

        ``p_nodule`` is calibrated over both stages where the first stage's score was given; else it is what the second
        stage says alone. ``p_malignant`` is the diameter rule's, and null without a diameter or where a network rates
        in place of the rule.
        """
        answers = []
        for score, diameter, second in zip(crops.segmentation_score, crops.diameter_mm, classification, strict=True):
            p_nodule, p_malignant = second, None
            if score is not None:
                p_nodule = float(self._network.card.calibration.probability(np.array([score]), np.array([second]))[0])
            if diameter is not None and self._malignancy:
                p_malignant = self._malignancy.p_malignant(diameter)
            answers.append(
                {
                    "p_nodule": p_nodule,
                    "p_nodule_basis": "second stage alone" if score is None else "both stages",
                    "p_malignant": p_malignant,
                    "classification_score": second,
                }
            )
        return {"answers": answers, "model": self.card, "notice": RESEARCH_USE}
