"""Malignancy of nodules: the table with outcomes, what the diameter alone says, and what a network adds to it.

Works on LUNA16's table of nodules with the readers' malignancy. Must not know the rule that ships, images or networks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from carina.errors import InputError
from carina.evaluate.curves import (
    Reliability,
    Roc,
    clustered_auc_interval,
    reliability,
    resampled_groups,
    roc,
)
from carina.evaluate.froc import Interval, interval
from carina.evaluate.match import match
from carina.evaluate.tables import Detections, Nodules
from carina.io.luna import Malignancy
from carina.learn.ranking import auc


@dataclass(frozen=True, eq=False)
class MalignancyTable:
    """Nodules with an outcome.

    Attributes:
        series_uid: scan of each nodule.
        center_lps: centre of each nodule in mm.
        diameter_mm: its diameter.
        malignant: whether the table calls it malignant.
    """

    series_uid: tuple[str, ...]
    center_lps: Float64[np.ndarray, "n 3"]
    diameter_mm: Float64[np.ndarray, " n"]
    malignant: Bool[np.ndarray, " n"]

    @classmethod
    def of(cls, rows: Sequence[Malignancy]) -> "MalignancyTable":
        """The rows of LUNA16's table with malignancy as arrays.

        Raises:
            InputError: a nodule without a diameter.
        """
        for row in rows:
            if row.diameter_mm <= 0:
                raise InputError(
                    f"series {row.series_uid}: the nodule at {row.center_lps} mm has a diameter of "
                    f"{row.diameter_mm:g} mm, expected more than 0"
                )
        return cls(
            tuple(row.series_uid for row in rows),
            np.array([row.center_lps for row in rows], np.float64).reshape(-1, 3),
            np.array([row.diameter_mm for row in rows], np.float64),
            np.array([row.malignant for row in rows], bool),
        )

    def __len__(self) -> int:
        return len(self.series_uid)

    def of_series(self, series: Sequence[str]) -> "MalignancyTable":
        """The nodules of these scans, in the table's order."""
        wanted = set(series)
        keep = np.array([uid in wanted for uid in self.series_uid], bool)
        return MalignancyTable(
            tuple(uid for uid, kept in zip(self.series_uid, keep, strict=True) if kept),
            self.center_lps[keep],
            self.diameter_mm[keep],
            self.malignant[keep],
        )


@dataclass(frozen=True, eq=False)
class SizeBaseline:
    """What the diameter alone achieves on some scans.

    Attributes:
        n_scans: scans, with and without nodules.
        n_nodules: nodules in them.
        n_malignant: how many the table calls malignant.
        roc: with the diameter as score; its interval (DeLong) takes nodules as independent.
        auc_interval_by_scan: interval over resamples of whole scans.
    """

    n_scans: int
    n_nodules: int
    n_malignant: int
    roc: Roc
    auc_interval_by_scan: Interval


@dataclass(frozen=True, eq=False)
class AgainstSize:
    """A network's malignancy against the diameter of the same nodules.

    Attributes:
        n_nodules: nodules in the scans.
        n_hit: those that a detection hit; only they are judged.
        network: ROC of the network's probability.
        size: ROC of the diameter.
        gain: area of the network minus that of the diameter.
        gain_interval: 95 % interval of the gain, over paired resamples of scans.
        calibration: of the network's probability.
    """

    n_nodules: int
    n_hit: int
    network: Roc
    size: Roc
    gain: float
    gain_interval: Interval
    calibration: Reliability


def size_baseline(table: MalignancyTable, series: Sequence[str], *, seed: int = 0) -> SizeBaseline:
    """Rank the nodules of these scans by their diameter.

    Raises:
        InputError: the scans hold not both benign and malignant nodules.
    """
    nodules = table.of_series(series)
    return SizeBaseline(
        n_scans=len(set(series)),
        n_nodules=len(nodules),
        n_malignant=int(nodules.malignant.sum()),
        roc=roc(nodules.malignant, nodules.diameter_mm),
        auc_interval_by_scan=clustered_auc_interval(
            nodules.malignant, nodules.diameter_mm, number_groups(nodules.series_uid), seed=seed
        ),
    )


def compare_with_size(
    table: MalignancyTable,
    series: Sequence[str],
    detections: Detections,
    p_malignant: Float64[np.ndarray, " n"],
    *,
    bootstraps: int = 1000,
    seed: int = 0,
) -> AgainstSize:
    """Hold a network's probabilities against the diameter, on the nodules that its detections hit.

    Args:
        table: nodules with outcome.
        series: scans to judge.
        detections: where the network looked; the best-scored hit of a nodule answers for it.
        p_malignant: probability of malignancy of each detection.
        bootstraps: paired resamples of the scans.
        seed: of the resamples.

    Raises:
        InputError: the nodules hit are not both benign and malignant.
    """
    nodules = table.of_series(series)
    truth = Nodules(nodules.series_uid, nodules.center_lps, nodules.diameter_mm, ("",) * len(nodules))
    answer = match(detections, truth, scans=sorted(set(series)), marks_per_scan=None).nodule_detection
    hit = answer >= 0
    malignant, size, probability = nodules.malignant[hit], nodules.diameter_mm[hit], p_malignant[answer[hit]]
    by_network, by_size = roc(malignant, probability), roc(malignant, size)
    scan = number_groups([uid for uid, kept in zip(nodules.series_uid, hit, strict=True) if kept])
    gains = [
        auc(malignant[cases], probability[cases]) - auc(malignant[cases], size[cases])
        for cases in resampled_groups(scan, bootstraps, seed)
        if 0 < malignant[cases].sum() < len(cases)
    ]
    return AgainstSize(
        n_nodules=len(nodules),
        n_hit=int(hit.sum()),
        network=by_network,
        size=by_size,
        gain=by_network.auc - by_size.auc,
        gain_interval=interval(np.array(gains), 0.95),
        calibration=reliability(malignant, probability),
    )


def number_groups(names: Sequence[str]) -> Int64[np.ndarray, " n"]:
    """Number of the group of each case, 0 to groups - 1, from the groups' names."""
    return np.unique(np.array(names, dtype=str), return_inverse=True)[1].astype(np.int64)
