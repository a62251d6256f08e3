"""Presets: recipes as TOML files that hold nothing but what differs from the settings' own defaults.

A preset has one table for each experiment and one for the data of the whole recipe. What it does not name stays as
the dataclasses say; what it names wrongly is refused with its path in the file. TOML has no word for nothing: where a
setting may be left out, ``false`` leaves it out (``augment = false``). Must not know how the settings are used.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import msgspec

from carina.errors import UsageError
from carina.geometry import Vector3
from carina.tasks.malignancy import MalignancySettings
from carina.tasks.marking import SegmentationSettings
from carina.tasks.nodule import NoduleSettings

T = TypeVar("T")


@dataclass(frozen=True)
class CohortSettings:
    """What the recipe makes before it trains.

    Attributes:
        phantoms: training scans made from phantoms.
        per_background: training scans made from each CT that is given as a background.
        nodules_per_scan: fewest and most nodules tried in a scan.
        distractors_per_scan: fewest and most look-alikes tried in a scan.
        held_out_phantoms: scans, of shapes that train nothing, that fix probabilities and thresholds.
        held_out_per_background: likewise, made from each CT that is given as a background.
        mined_scans: training scans on which the segmentation's mistakes are collected.
        segmentation_spacing_mm: grid (z, y, x) of the first stage; the second one has the package's own.
        seed: of the training scans; the held-out ones have the next.
    """

    phantoms: int = 24
    per_background: int = 4
    nodules_per_scan: tuple[int, int] = (12, 20)
    distractors_per_scan: tuple[int, int] = (12, 24)
    held_out_phantoms: int = 10
    held_out_per_background: int = 2
    mined_scans: int = 12
    segmentation_spacing_mm: Vector3 = (2.0, 2.0, 2.0)
    seed: int = 0


@dataclass(frozen=True)
class Preset:
    """A recipe.

    Attributes:
        summary: what it is for and what it takes, in words.
        cohort: the data.
        segmentation: the first stage.
        nodule: the second stage.
        malignancy: fine-tuning of the second stage.
    """

    summary: str = ""
    cohort: CohortSettings = field(default_factory=CohortSettings)
    segmentation: SegmentationSettings = field(default_factory=SegmentationSettings)
    nodule: NoduleSettings = field(default_factory=NoduleSettings)
    malignancy: MalignancySettings = field(default_factory=MalignancySettings)


def shipped_presets() -> dict[str, str]:
    """Names and texts of the presets that come with Carina."""
    folder = files("carina") / "tasks" / "presets"
    found = [file for file in folder.iterdir() if file.name.endswith(".toml")]
    return {file.name.removesuffix(".toml"): file.read_text() for file in sorted(found, key=lambda f: f.name)}


def load_preset(name: str | None) -> Preset:
    """A preset by name or from a file; without a name the settings' own defaults.

    Args:
        name: of a shipped preset, or the path of a TOML file (ending in .toml).

    Raises:
        UsageError: there is none, it is not TOML, or it names a setting that does not exist or has another type.
    """
    if name is None:
        return Preset()
    if name.endswith(".toml"):
        try:
            text = Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read the preset {name}: {error}") from error
    else:
        shipped = shipped_presets()
        if name not in shipped:
            raise UsageError(f"no preset {name!r}; choose {', '.join(shipped)}, or name a file that ends in .toml")
        text = shipped[name]
    try:
        changes = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"the preset {name} is not TOML: {error}") from error
    return changed(Preset(), changes, name)


def changed(defaults: T, changes: Mapping[str, Any], where: str) -> T:
    """A settings object with some values replaced, tables in it by their own settings.

    Args:
        defaults: an instance of a dataclass.
        changes: values by name, as TOML gives them.
        where: the place in the file, for errors.

    Raises:
        UsageError: an unknown name or a value of another type; the message holds its path.
    """
    hints = get_type_hints(type(defaults))
    values: dict[str, Any] = {}
    for name, value in changes.items():
        path = f"{where}: {name}" if ":" not in where else f"{where}.{name}"
        if name not in hints:
            raise UsageError(f"{path} is no setting; known there: {', '.join(hints)}")
        now = getattr(defaults, name)
        if is_dataclass(now) and isinstance(value, Mapping):
            values[name] = changed(now, value, path)
        elif value is False and type(None) in get_args(hints[name]):
            values[name] = None
        else:
            try:
                values[name] = msgspec.convert(value, hints[name], dec_hook=_path)
            except msgspec.ValidationError as error:
                raise UsageError(f"{path} is {value!r}: {error}") from error
    return replace(defaults, **values)


def _path(wanted: type, value: Any) -> Any:
    """Paths are written as text."""
    if wanted is Path and isinstance(value, str):
        return Path(value)
    raise TypeError(f"expected {wanted.__name__}, got {type(value).__name__}")
