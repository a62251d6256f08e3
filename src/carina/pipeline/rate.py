"""Malignancy by a network, where the folder of weights holds one: it answers in place of the rule of size."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from carina.ct.preprocess import PreparedScan
from carina.findings import Finding
from carina.models.malignancy import DiameterRule
from carina.pipeline.classify import classify
from carina.pipeline.runtime import Network, Runtime


def load_malignancy(
    folder: Path, shipped: Path, device: torch.device, runtime: Runtime
) -> tuple[DiameterRule, Network | None]:
    """The rule of size, and the network where ``malignancy.safetensors`` is there.

    The network's card has the rule's name, ``malignancy.json``; the shipped rule then stands for it.

    Raises:
        WeightsError: a file is missing, damaged, or does not fit its card.
    """
    if not (folder / "malignancy.safetensors").is_file():
        return DiameterRule.load(folder / "malignancy.json"), None
    network = Network.load(folder / "malignancy.safetensors", device, runtime)
    return DiameterRule.load(shipped / "malignancy.json"), network


def rate(findings: Sequence[Finding], scan: PreparedScan, network: Network) -> tuple[Finding, ...]:
    """The findings with the network's calibrated probability that each is malignant.

    Args:
        findings: in any order.
        scan: on the network's grid.
        network: takes crops, gives two logits.
    """
    seen = classify(scan, [f.center_lps for f in findings], network, flips=network.card.flips)
    # The card's calibration gives the first stage no weight.
    p_malignant = network.card.calibration.probability(np.full(len(seen), 0.5), seen)
    return tuple(replace(f, p_malignant=float(p)) for f, p in zip(findings, p_malignant, strict=True))
