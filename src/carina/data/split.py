"""Which scans train, which validate, which test: by patient, and the same tomorrow.

Must not know arrays, files or networks.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import TypeVar

from carina.data.store import Scan
from carina.errors import UsageError

T = TypeVar("T")


def patient_fraction(patient_id: str, seed: int = 0) -> float:
    """A number in [0, 1) that depends on patient and seed alone, evenly spread over patients."""
    digest = hashlib.sha256(f"{seed}:{patient_id}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def split_by_patient(scans: Sequence[Scan], fractions: Mapping[str, float], seed: int = 0) -> dict[str, list[Scan]]:
    """Split by patient; a patient stays in its part when others are added or removed.

    Args:
        scans: prepared scans.
        fractions: share of the patients by name of the part, such as ``{"train": 0.8, "validation": 0.2}``; the
            order matters, and what is left below a sum of 1 is in no part.
        seed: another seed gives another split.

    Returns:
        The scans by part, in their order. Shares hold on average over many patients.

    Raises:
        UsageError: fractions below 0 or above 1 in sum.
    """
    if any(f < 0 for f in fractions.values()) or sum(fractions.values()) > 1 + 1e-9:
        raise UsageError(f"split fractions {dict(fractions)}: expected shares from 0 that add up to 1 at most")
    parts: dict[str, list[Scan]] = {name: [] for name in fractions}
    for scan in scans:
        place, end = patient_fraction(scan.patient_id, seed), 0.0
        for name, fraction in fractions.items():
            end += fraction
            # A sum of shares such as 0.7 + 0.2 + 0.1 may end just below 1.
            if place < end or (end > 1 - 1e-9):
                parts[name].append(scan)
                break
    return parts


def split_by_subset(scans: Sequence[Scan], held_out: int) -> tuple[list[Scan], list[Scan]]:
    """LUNA16's cross-validation: (training scans, scans of subset ``held_out``).

    Raises:
        UsageError: a scan outside of the ten subsets, or no scan in the one held out.
    """
    outside = [s.series_uid for s in scans if s.subset is None]
    if outside:
        raise UsageError(f"{len(outside)} scans lie in no LUNA16 subset, the first is {outside[0]}")
    training = [s for s in scans if s.subset != held_out]
    validation = [s for s in scans if s.subset == held_out]
    if not validation:
        present = sorted({s.subset for s in scans if s.subset is not None})
        raise UsageError(f"no scan lies in subset{held_out}; there are {present}")
    return training, validation


def every_nth(items: Sequence[T], n: int = 10, offset: int = 0) -> tuple[list[T], list[T]]:
    """The textbook's split: (the rest, every ``n``-th item beginning at ``offset``) of a sorted sequence.

    On LUNA16's 888 series UIDs in sorted order, n = 10 holds out 89 scans with 154 nodules.
    """
    if n < 2:
        raise UsageError(f"every {n}-th series cannot be held out; expected at least 2")
    held_out = [item for i, item in enumerate(items) if i % n == offset]
    return [item for i, item in enumerate(items) if i % n != offset], held_out
