"""Malignancy from size alone: the rule that ships until images with a known outcome can train a network.

One logistic curve over the logarithm of the diameter, kept as a JSON card with what it was fitted on and how well
it ranks and calibrates. It is a ruler, not a network, and says so. Must not know images, reports or torch.
"""

import hashlib
import math
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from carina.errors import WeightsError
from carina.replacing import replacing

Scale: TypeAlias = Literal["log", "linear"]

RULE_NAME = "diameter-rule"
"""The rule's name in reports and lists of models, and the kind of its card."""

SUMMARY = (
    "A rule of size, not a network: it knows the diameter of the nodule and nothing of its density, border, growth "
    "or of the patient. Malignant means that radiologists rated it so; no pathology stands behind it."
)


class RuleEvidence(msgspec.Struct, frozen=True):
    """What a rule was fitted on and how well it does on scans that its fit did not see.

    Attributes:
        data: name of the table.
        licence: licence of the table.
        excluded_series: series UIDs that took no part in the fit.
        n: nodules fitted.
        n_malignant: how many of them are malignant as the table says.
        auc: area under the ROC curve, out of fold.
        auc_interval: 95 % interval of ``auc``.
        calibration_error: expected calibration error over ten equal-width bins, out of fold.
        brier: mean squared difference of probability and outcome, out of fold.
        method: how the figures were obtained, in words.
        series_uids: every series whose nodules took part, so that leaks into a test can be found.
    """

    data: str
    licence: str
    excluded_series: tuple[str, ...]
    n: int
    n_malignant: int
    auc: float
    auc_interval: tuple[float, float]
    calibration_error: float
    brier: float
    method: str
    series_uids: tuple[str, ...] = ()


TYPE_TERMS = ("calcified", "part-solid", "ground-glass")
"""Types of nodule that a rated rule tells from solid ones."""


class RatedEvidence(msgspec.Struct, frozen=True):
    """What a rated rule was fitted on, and how well rules that know less or as much rank unseen patients' nodules.

    Attributes:
        data: name of the table.
        n: nodules fitted.
        n_malignant: how many of them their readers called malignant.
        patients: whose they are.
        auc_and_interval: by what a rule looks at: area under the ROC curve, out of fold, and its 95 % interval.
        method: how the figures were obtained, in words.
    """

    data: str
    n: int
    n_malignant: int
    patients: int
    auc_and_interval: dict[str, tuple[float, float, float]]
    method: str


class RatedRule(msgspec.Struct, frozen=True):
    """The rule for a nodule whose type and spiculation a reader has rated; the detector itself rates neither.

    Attributes:
        intercept: log-odds of a solid nodule of 1 mm without spiculation.
        log_diameter: log-odds per unit of the natural logarithm of the diameter in mm.
        types: log-odds by type, against solid.
        spiculation: log-odds per step of the rating above 1.
        evidence: data and figures behind the rule.
    """

    intercept: float
    log_diameter: float
    types: dict[str, float]
    spiculation: float
    evidence: RatedEvidence

    def p_malignant(self, diameter_mm: float, kind: str = "solid", spiculation: float = 1.0) -> float:
        """Probability in [0, 1].

        Args:
            diameter_mm: diameter of the sphere of the same volume; must be above 0.
            kind: solid, or one of ``TYPE_TERMS``.
            spiculation: rating from 1 (none) to 5 (marked).

        Raises:
            ValueError: a diameter, kind or rating that does not exist.
        """
        if not (diameter_mm > 0 and math.isfinite(diameter_mm)) or not 1 <= spiculation <= 5:
            raise ValueError(f"diameter of {diameter_mm} mm, spiculation {spiculation}; expected above 0, and 1 to 5")
        if kind != "solid" and kind not in self.types:
            raise ValueError(f"kind {kind!r}; expected solid, {', '.join(self.types)}")
        log_odds = self.intercept + self.log_diameter * math.log(diameter_mm) + self.types.get(kind, 0.0)
        return 0.5 * (1.0 + math.tanh(0.5 * (log_odds + self.spiculation * (spiculation - 1))))


class DiameterRule(msgspec.Struct, frozen=True, tag_field="kind", tag=RULE_NAME):
    """Probability that a nodule is malignant, from its diameter.

    ``p = 1 / (1 + exp(-(intercept + slope * f(diameter))))`` with ``f`` the natural logarithm or the identity.

    Attributes:
        intercept: log-odds at ``f = 0``.
        slope: log-odds per unit of ``f``; positive.
        scale: ``log`` for the logarithm of the diameter in mm, ``linear`` for the diameter itself.
        evidence: data and figures behind the rule.
        summary: what the rule is, for reports.
        rated: the rule for nodules whose type and spiculation are rated, None where it was not fitted.
    """

    intercept: float
    slope: float
    scale: Scale
    evidence: RuleEvidence
    summary: str = SUMMARY
    rated: RatedRule | None = None

    def p_malignant(self, diameter_mm: float) -> float:
        """Probability in [0, 1] for a nodule of this diameter; grows with it.

        Args:
            diameter_mm: diameter of the sphere of the same volume; must be above 0.

        Raises:
            ValueError: the diameter is not a positive number.
        """
        if not (diameter_mm > 0 and math.isfinite(diameter_mm)):
            raise ValueError(f"diameter of {diameter_mm} mm; it must be a positive number")
        log_odds = self.intercept + self.slope * (math.log(diameter_mm) if self.scale == "log" else diameter_mm)
        return 0.5 * (1.0 + math.tanh(0.5 * log_odds))

    @property
    def sha256(self) -> str:
        """Hash of the rule's content, so that reports name exactly what they used."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()

    def save(self, path: Path) -> None:
        """Write the rule as an indented JSON card; an existing file is replaced whole or not at all."""
        with replacing(path) as draft:
            draft.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n")

    @classmethod
    def load(cls, path: Path) -> "DiameterRule":
        """Read a card that ``save`` wrote.

        Raises:
            WeightsError: the file is missing or no diameter rule, or its curve does not grow with size.
        """
        try:
            rule = msgspec.json.decode(path.read_bytes(), type=cls)
        except OSError as error:
            raise WeightsError(f"cannot read the malignancy rule {path}: {error.strerror}") from error
        except ValueError as error:  # no JSON, other JSON, or bytes that are not UTF-8
            raise WeightsError(f"{path} is not the card of a diameter rule: {error}") from error
        if not (math.isfinite(rule.intercept) and math.isfinite(rule.slope) and rule.slope > 0):
            raise WeightsError(
                f"{path}: intercept {rule.intercept} and slope {rule.slope} give no rule that grows with size"
            )
        return rule
