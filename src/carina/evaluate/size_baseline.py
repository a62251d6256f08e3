"""What the diameter alone says about malignancy, and what a network adds to it.

Must not know how the rule that ships is fitted, nor images or networks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from carina.evaluate.curves import (
    Calibration,
    Roc,
    auc,
    calibration,
    clustered_auc_interval,
    resampled_groups,
    roc,
)
from carina.evaluate.froc import Interval, interval
from carina.evaluate.malignancy import MalignancyTable, number_groups
from carina.evaluate.match import match
from carina.evaluate.tables import Detections, Nodules


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
    calibration: Calibration


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
        calibration=calibration(malignant, probability),
    )
