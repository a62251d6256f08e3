"""From a CT to a report: the stages in their order, with models that are loaded once.

This file reads top to bottom as the pipeline runs. Must not know training or file formats of reports.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

import carina
from carina.ct.measure import Measures, measure
from carina.ct.preprocess import PreparedScan, prepare_on, prepare_scan
from carina.errors import UsageError
from carina.findings import MOST_FINDINGS, Candidate, Finding, InputSummary, ModelInfo, Report, check_threshold
from carina.io import read_ct
from carina.models.card import Card
from carina.models.malignancy import RULE_NAME, DiameterRule
from carina.pipeline.classify import classify
from carina.pipeline.diagnose import diagnose
from carina.pipeline.group import group
from carina.pipeline.outline import paint
from carina.pipeline.rate import load_malignancy, rate
from carina.pipeline.runtime import Network, choose_device, choose_runtime
from carina.pipeline.segment import segment
from carina.volume import Volume

Progress = Callable[[str, float], None]

NEAR_LUNG_MM = 3.0
"""Candidates lie in the lungs or this close to them: nodules on the pleura reach beyond the mask."""

MOST_CANDIDATES = 1000
"""More candidates than this are no chest CT that the first stage understands; the rest is left out with a warning."""


def _silent(stage: str, done: float) -> None:
    """Report progress to nobody."""


@dataclass(frozen=True)
class Detection:
    """What the detector found in one CT.

    Attributes:
        report: the findings and the patient answer.
        volume: the CT as read.
        mask: in the geometry of ``volume``; the value is the ``id`` of the finding.
    """

    report: Report
    volume: Volume
    mask: UInt8[np.ndarray, "z y x"]


@dataclass(frozen=True)
class Detector:
    """The models of the pipeline, loaded once and applied many times.

    Attributes:
        segmenter: marks voxels of nodules.
        classifier: tells nodules from other candidates; None: the first stage's score stands alone.
        malignancy: probability of malignancy of a nodule, from its size.
        threshold: findings of lower ``p_nodule`` are left out.
        rater: a network that says the probability of malignancy instead; none ships.
    """

    segmenter: Network
    classifier: Network | None
    malignancy: DiameterRule
    threshold: float
    rater: Network | None = None

    @classmethod
    def load(
        cls,
        weights: Path | None = None,
        *,
        device: str = "auto",
        runtime: str = "auto",
        threshold: float | None = None,
        sensitivity: str = "balanced",
        first_stage_only: bool = False,
    ) -> "Detector":
        """Load the models.

        Args:
            weights: folder with ``segmentation``, ``nodule`` (``.safetensors`` and ``.json``) and
                ``malignancy.json``; default: those shipped with Carina. Where there is a ``malignancy.safetensors``,
                that network says what is malignant, and ``malignancy.json`` is its card.
            device: auto, cpu, cuda, cuda:N or mps.
            runtime: what computes the networks: auto (the fastest installed), openvino, onnxruntime or torch.
            threshold: lowest ``p_nodule`` of a finding; default: the operating point in the nodule network's card.
            sensitivity: which operating point of the card, where no threshold is given: high, balanced or specific.
            first_stage_only: leave the second stage out: ``p_nodule`` is the segmentation's score. For finding hard
                negatives, and for measuring what the second stage adds.

        Raises:
            WeightsError: a file is missing, damaged, or does not fit its card.
            UsageError: the threshold is no probability, the device is not present, the runtime not installed, or there
                is no such operating point in the card.
        """
        check_threshold(threshold)
        where = choose_device(device)
        how = choose_runtime(runtime, where)
        with as_file(files("carina") / "weights") as shipped:
            folder = weights or shipped
            segmenter = Network.load(folder / "segmentation.safetensors", where, how)
            classifier = None if first_stage_only else Network.load(folder / "nodule.safetensors", where, how)
            rule, rater = load_malignancy(folder, shipped, where, how)
        if threshold is None:
            threshold = operating_point((classifier or segmenter).card, sensitivity)
        return cls(segmenter, classifier, rule, threshold, rater)

    def detect(
        self,
        source: str | Path | Sequence[Path] | Volume,
        *,
        series_uid: str | None = None,
        progress: Progress = _silent,
    ) -> Detection:
        """Analyse one CT.

        Args:
            source: a path that ``carina.read_ct`` reads, or a volume.
            series_uid: which DICOM series to take; default: the best one.
            progress: told the stage's name and the fraction done.

        Raises:
            InputError: the input cannot be read, is no CT of a chest, or holds no lungs.
        """
        clock = _Clock(progress)
        with clock.stage("read"):
            volume = source if isinstance(source, Volume) else read_ct(source, series_uid=series_uid)
        with clock.stage("lungs"):
            scan = prepare_scan(volume, self.segmenter.card.preprocessing)
            near_lungs = scan.lungs.on(scan.geometry, NEAR_LUNG_MM)
        with clock.stage("segment"):
            probability = segment(
                scan.hu,
                self.segmenter,
                inside=near_lungs,
                flips=self.segmenter.card.flips,
                progress=lambda done: progress("segment", done),
            )
        with clock.stage("group"):
            candidates, regions = group(
                probability,
                near_lungs,
                scan.geometry,
                threshold=self.segmenter.card.threshold,
                lower_thresholds=self.segmenter.card.lower_thresholds,
                min_volume_mm3=self.segmenter.card.min_volume_mm3,
            )
            warnings = volume.source.warnings
            if len(candidates) > MOST_CANDIDATES:
                warnings += (f"{len(candidates)} candidates; only the {MOST_CANDIDATES} best were looked at",)
                candidates = candidates[:MOST_CANDIDATES]
        with clock.stage("classify"):
            p_nodule = np.array([c.score for c in candidates])
            second: list[float | None] = [None] * len(candidates)
            if self.classifier and candidates:
                seen = classify(
                    _on_grid_of(self.classifier, scan, volume),
                    [c.center_lps for c in candidates],
                    self.classifier,
                    flips=self.classifier.card.flips,
                    again_above=self.classifier.card.again_above,
                    progress=lambda done: progress("classify", done),
                )
                # A logistic regression on the log-odds of both stages: its coefficients say what each adds.
                p_nodule, second = self.classifier.card.calibration.probability(p_nodule, seen), seen.tolist()
        with clock.stage("diagnose"):
            passing = [i for i in np.argsort(-p_nodule) if p_nodule[i] >= self.threshold]
            kept = passing[:MOST_FINDINGS]
            if len(passing) > len(kept):
                warnings += (f"{len(passing)} findings; only the {MOST_FINDINGS} most probable are listed",)
            chosen, marked = [candidates[i] for i in kept], [regions[i] for i in kept]
            findings = tuple(
                self._finding(number, candidates[i], (float(p_nodule[i]), second[i]), scan, regions[i], volume)
                for number, i in enumerate(kept, start=1)
            )
            if self.rater:
                findings = rate(findings, _on_grid_of(self.rater, scan, volume), self.rater)
            mask = paint(chosen, marked, probability, scan.geometry, volume.geometry)
            sizes = measure(volume, mask)
            findings = tuple(_with_size(f, sizes[f.id]) if f.id in sizes else f for f in findings)
        report = Report(
            case_id=volume.source.case_id,
            input=_summary(volume, scan),
            findings=findings,
            patient=diagnose(findings),
            threshold=self.threshold,
            models=self._models(),
            seconds={stage: round(seconds, 3) for stage, seconds in clock.seconds.items()},
            warnings=warnings,
            carina_version=carina.__version__,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        return Detection(report, volume, mask)

    def _finding(
        self,
        number: int,
        candidate: Candidate,
        probabilities: tuple[float, float | None],
        scan: PreparedScan,
        region: np.ndarray,
        volume: Volume,
    ) -> Finding:
        box = tuple(slice(a, b) for a, b in zip(*candidate.box_zyx, strict=True))
        diameter = float(np.cbrt(6 * candidate.volume_mm3 / np.pi))
        z, y, x = volume.geometry.to_zyx(candidate.center_lps)
        index = int(np.clip(round(z), 0, volume.hu.shape[0] - 1))
        slice_ref = volume.source.slices[index] if volume.source.slices else None
        return Finding(
            id=number,
            center_lps=candidate.center_lps,
            center_zyx=(float(z), float(y), float(x)),
            diameter_mm=diameter,
            volume_mm3=candidate.volume_mm3,
            mean_hu=float(scan.hu[box][region].mean()),
            p_nodule=probabilities[0],
            segmentation_score=candidate.score,
            classification_score=probabilities[1],
            p_malignant=self.malignancy.p_malignant(diameter),
            slice_index=index,
            sop_instance_uid=slice_ref.sop_instance_uid if slice_ref else None,
            instance_number=slice_ref.instance_number if slice_ref else None,
        )

    def _models(self) -> tuple[ModelInfo, ...]:
        networks = {"segmentation": self.segmenter, "nodule": self.classifier, "malignancy": self.rater}
        models = tuple(
            ModelInfo(role, network.card.name, network.card.sha256, network.runtime, network.card.summary)
            for role, network in networks.items()
            if network is not None
        )
        rule = ModelInfo("malignancy", RULE_NAME, self.malignancy.sha256, "", self.malignancy.summary)
        return models if self.rater else (*models, rule)


def operating_point(card: Card, sensitivity: str) -> float:
    """The cut on ``p_nodule`` that a card names so; ``balanced`` is every card's own threshold.

    Raises:
        UsageError: the card has no such operating point.
    """
    known = {**card.operating_points, "balanced": card.threshold}
    if sensitivity not in known:
        raise UsageError(f"{card.name} has no operating point {sensitivity!r}; choose from {', '.join(sorted(known))}")
    return known[sensitivity]


class _Clock:
    """Seconds by stage; tells ``progress`` where a stage begins and ends."""

    def __init__(self, progress: Progress) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._progress(name, 0.0)
        begin = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - begin
        self._progress(name, 1.0)


def _on_grid_of(network: Network, scan: PreparedScan, volume: Volume) -> PreparedScan:
    """The scan as ``network`` wants it; resampled once more only where its grid is another one."""
    wanted = network.card.preprocessing
    return scan if wanted.spacing_zyx_mm == scan.geometry.spacing_zyx_mm else prepare_on(volume, scan.lungs, wanted)


def _with_size(finding: Finding, size: Measures) -> Finding:
    return replace(
        finding,
        long_axis_mm=size.long_axis_mm,
        short_axis_mm=size.short_axis_mm,
        mean_axis_mm=size.mean_axis_mm,
        long_axis_lps=size.long_axis_lps,
        short_axis_lps=size.short_axis_lps,
        corrected_volume_mm3=size.volume_mm3,
        solid_volume_mm3=size.solid_volume_mm3,
    )


def _summary(volume: Volume, scan: PreparedScan) -> InputSummary:
    source = volume.source
    return InputSummary(
        path=source.path,
        format=source.format,
        series_uid=source.series_uid,
        study_uid=source.study_uid,
        frame_of_reference_uid=source.frame_of_reference_uid,
        shape_zyx=volume.geometry.shape_zyx,
        spacing_zyx_mm=volume.geometry.spacing_zyx_mm,
        lung_litres=round(scan.litres, 2),
    )


def detect(path: str | Path | Sequence[Path], *, device: str = "auto", threshold: float | None = None) -> Report:
    """Find nodules in a CT, with the models shipped with Carina. For research use only.

    Args:
        path: a DICOM folder or files, or a MetaImage, NIfTI or NRRD file.
        device: auto, cpu, cuda, cuda:N or mps.
        threshold: lowest ``p_nodule`` of a finding; default: the shipped operating point.

    Raises:
        InputError: the input cannot be read, is no CT of a chest, or holds no lungs.
        UsageError: the threshold is no probability, or the device is not present.
    """
    return Detector.load(device=device, threshold=threshold).detect(path).report
