"""``carina tune``: hard negatives for the next training, and the operating point on held-out data."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from carina.errors import UsageError


@dataclass(kw_only=True)
class _Results:
    results: tyro.conf.Positional[tuple[Path, ...]]
    """Folders that `carina detect --threshold 0` wrote."""
    cohorts: tuple[Path, ...]
    """The cohort (LUNA16's layout) of each of these folders, in their order."""

    def pairs(self) -> list[tuple[Path, Path]]:
        """Results with their cohorts."""
        if not self.results:
            raise UsageError("no RESULTS given: name folders that `carina detect --threshold 0` wrote")
        if len(self.results) != len(self.cohorts):
            raise UsageError(f"{len(self.results)} folders of results for {len(self.cohorts)} cohorts; give one each")
        return list(zip(self.results, self.cohorts, strict=True))


@dataclass
class Mine(_Results):
    """Write the candidates of a detector with their truth, for `carina train nodule --mined`."""

    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """CSV in the form of LUNA16's candidates."""

    def run(self) -> None:
        """Judge and write."""
        from carina.evaluate.operating_point import candidates, judge
        from carina.io.luna import write_candidates

        rows = [row for results, cohort in self.pairs() for row in candidates(judge(results, cohort))]
        write_candidates(self.output, rows)
        nodules = sum(row.is_nodule for row in rows)
        print(f"{self.output}: {nodules} candidates on nodules, {len(rows) - nodules} hard negatives")


@dataclass
class Calibrate(_Results):
    """Fit the probability of both stages on held-out scans and write it into the nodule network's card."""

    weights: Path
    """Folder of weights; its nodule.json is rewritten."""
    measured_on: str
    """The held-out data in words, for the card."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """Folder for a page with the FROC, sensitivity by size and type, and the reliability plot."""

    def run(self) -> None:
        """Fit, rewrite the card, and show the figures."""
        from carina.evaluate.operating_point import calibrate, judge
        from carina.evaluate.present import present_operating_point
        from carina.models.card import load_card, save_card

        point = calibrate([judge(results, cohort) for results, cohort in self.pairs()])
        path = self.weights / "nodule.json"
        save_card(path, point.on(load_card(path), self.measured_on))
        summary = present_operating_point(point, self.measured_on)
        if self.output is not None:
            summary.write(self.output)
        fit = point.calibration
        print(
            f"p = sigmoid({fit.intercept:.3f} + {fit.segmentation:.3f} logit(segmentation) "
            f"+ {fit.classification:.3f} logit(classification))"
        )
        print(summary.to_text())


@dataclass
class Tune:
    """Find hard negatives for the next training, or the operating point on held-out data."""

    step: tyro.conf.OmitSubcommandPrefixes[Mine | Calibrate]

    def run(self) -> None:
        """Run the chosen step."""
        self.step.run()
