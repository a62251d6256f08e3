"""``carina models``: which models there are, what is known about them, and which scans they have seen."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from carina.errors import UsageError

if TYPE_CHECKING:
    from carina.models.inventory import KnownModel

MOST_SHOWN = 10
"""Series of a leak that the text names."""


@dataclass(kw_only=True)
class _Chosen:
    weights: tuple[Path, ...] = ()
    """Folders or files of models, or folders of runs; default: the models that ship with Carina."""

    @contextmanager
    def models(self) -> "Iterator[list[KnownModel]]":
        """The cards of the chosen models."""
        from importlib.resources import as_file, files

        from carina.models.inventory import find_models

        with as_file(files("carina") / "weights") as shipped:
            yield [model for path in (self.weights or (shipped,)) for model in find_models(path)]


@dataclass
class List(_Chosen):
    """One line per model."""

    def run(self) -> None:
        """Print the table."""
        with self.models() as models:
            rows = [("model", "answers", "series seen", "measured")]
            rows += [(m.name, m.answers, str(len(m.series_uids)), _figures(m)) for m in models]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        for row in rows:
            print("  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[3]]).rstrip())


@dataclass
class Show(_Chosen):
    """The whole card of a model, without its list of series."""

    name: tyro.conf.Positional[str]
    """Name of the model or of its file, or what it answers: segmentation, nodule, malignancy."""
    series: bool = False
    """Print the series that it learned from, one per line, and nothing else."""

    def run(self) -> None:
        """Print the card, or the series."""
        import msgspec

        with self.models() as models:
            chosen = [m for m in models if self.name in (m.name, m.answers, m.path.stem)]
            if not chosen:
                raise UsageError(f"no model {self.name!r}; there are {', '.join(m.name for m in models)}")
            for model in chosen:
                if self.series:
                    print("\n".join(model.series_uids))
                    continue
                card = msgspec.to_builtins(model.card)
                part = card["training" if "training" in card else "evidence"]
                part["series_uids"] = f"{len(model.series_uids)} series; --series prints them"
                print(msgspec.json.format(msgspec.json.encode(card), indent=2).decode())


@dataclass
class Leak(_Chosen):
    """Tell whether models have learned from these series; exit code 1 if one has, or if its card does not say."""

    series: tuple[str, ...]
    """Series UIDs, or files: one UID per line, or a CSV with a column seriesuid; where it has a column
    background_uid, the CTs beneath synthetic scans are looked up too."""
    json: bool = False
    """Print JSON with all series that a model has seen; the text shows the first ten."""

    def run(self) -> int:
        """Look the series up in every card."""
        import msgspec

        from carina.models.inventory import find_leaks

        asked = list(dict.fromkeys(uid for text in self.series for uid in _uids(text)))
        if not asked:
            raise UsageError("no series given")
        with self.models() as models:
            leaks = find_leaks(models, asked)
        if self.json:
            rows = [{"model": leak.model.name, "knows": leak.knows, "seen": leak.seen} for leak in leaks]
            print(msgspec.json.format(msgspec.json.encode({"asked": asked, "models": rows}), indent=2).decode())
        else:
            for leak in leaks:
                seen = f"learned from {len(leak.seen)} of {len(asked)} series"
                print(f"{leak.model.name}: {seen if leak.knows else 'its card does not say what it learned from'}")
                for uid in leak.seen[:MOST_SHOWN]:
                    print(f"  {uid}")
                if len(leak.seen) > MOST_SHOWN:
                    print(f"  and {len(leak.seen) - MOST_SHOWN} more; --json lists all")
        # Of a card that does not say, nobody knows that it has not seen them.
        return 1 if any(leak.seen or not leak.knows for leak in leaks) else 0


@dataclass
class Models:
    """List and show models, and tell which scans they have seen."""

    what: tyro.conf.OmitSubcommandPrefixes[
        Annotated[List, tyro.conf.subcommand("list")]
        | Annotated[Show, tyro.conf.subcommand("show")]
        | Annotated[Leak, tyro.conf.subcommand("leak")]
    ]
    """What to do."""

    def run(self) -> int | None:
        """Run the chosen subcommand."""
        return self.what.run()


def _figures(model: "KnownModel") -> str:
    from carina.models.card import Card

    if not isinstance(model.card, Card):
        return f"AUC {model.card.evidence.auc:.3f} on {model.card.evidence.data}"
    figures = {name: value for name, value in model.card.metrics.items() if not name.startswith("train_")}
    shown = ", ".join(f"{name} {value:.3f}" for name, value in list(figures.items())[:4])
    return f"{shown} on {model.card.measured_on}" if shown else "nothing"


def _uids(text: str) -> list[str]:
    """The UIDs that an argument stands for."""
    from carina.evaluate.tables import read_columns, read_series
    from carina.io.uid import is_uid

    path = Path(text)
    if not path.is_file():
        if not is_uid(text):
            raise UsageError(f"--series {text!r} is neither a file nor a series UID (digits and dots)")
        return [text]
    with path.open(encoding="utf-8-sig") as file:
        header = file.readline().split(",")
    if header[0].strip() == "seriesuid":
        texts = read_columns(path, ["seriesuid"]).texts
        # A copy with inserted nodules is known by its own UID and by that of the CT beneath.
        return texts["seriesuid"] + [uid for uid in texts.get("background_uid", ()) if uid]
    return read_series(path)
