"""Which models lie in a folder, and which scans they have seen: cards read without their weights.

Must not know how models are applied.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from carina.errors import WeightsError
from carina.models.card import Card, load_card
from carina.models.malignancy import RULE_NAME, DiameterRule


@dataclass(frozen=True)
class KnownModel:
    """A model's card.

    Attributes:
        path: of the card.
        card: what it says; a network's, or that of the rule of diameter.
    """

    path: Path
    card: Card | DiameterRule

    @property
    def name(self) -> str:
        """As reports name it."""
        return self.card.name if isinstance(self.card, Card) else RULE_NAME

    @property
    def answers(self) -> str:
        """What it answers: segmentation, nodule or malignancy."""
        return self.card.task if isinstance(self.card, Card) else "malignancy"

    @property
    def series_uids(self) -> tuple[str, ...]:
        """Every series that it learned from, as far as its card tells."""
        if isinstance(self.card, Card):
            return self.card.training.series_uids
        return self.card.evidence.series_uids


@dataclass(frozen=True)
class Leak:
    """What a model has seen of some series.

    Attributes:
        model: the model.
        seen: those of the series that it learned from, in the order asked.
        knows: whether its card lists what it learned from at all; if not, ``seen`` says nothing.
    """

    model: KnownModel
    seen: tuple[str, ...]
    knows: bool


def find_models(path: Path) -> list[KnownModel]:
    """The cards of a folder and of the folders below it, or the one of a weights file.

    Raises:
        WeightsError: nothing there, or a card that cannot be read.
    """
    if path.is_file() or path.suffix in (".safetensors", ".json"):
        return [_read(path.with_suffix(".json"))]
    candidates = sorted(path.rglob("*.json"))
    found = [_read(candidate) for candidate in candidates if _is_card(candidate)]
    if not found:
        raise WeightsError(f"{path} holds no model card; name a folder of weights, or of a run of `carina train`")
    return found


def find_leaks(models: Iterable[KnownModel], series_uids: Iterable[str]) -> list[Leak]:
    """Which of the series each model has learned from."""
    asked = tuple(dict.fromkeys(series_uids))
    leaks = []
    for model in models:
        known = frozenset(model.series_uids)
        leaks.append(Leak(model, tuple(uid for uid in asked if uid in known), bool(known)))
    return leaks


def _is_card(path: Path) -> bool:
    """Other JSON files lie in the folders of runs: reports, stores, summaries."""
    if path.with_suffix(".safetensors").is_file():
        return True
    try:
        content = msgspec.json.decode(path.read_bytes())
    except (OSError, ValueError):  # no JSON, or bytes that are not UTF-8
        return False
    return isinstance(content, dict) and content.get("kind") == RULE_NAME


def _read(path: Path) -> KnownModel:
    if path.with_suffix(".safetensors").is_file() or not path.is_file():
        return KnownModel(path, load_card(path))
    return KnownModel(path, DiameterRule.load(path) if _is_card(path) else load_card(path))
