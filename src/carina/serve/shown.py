"""A report of the command line as the one finished job of a server, so that it can be looked at without uploading.

Must not know HTTP.
"""

import secrets
from pathlib import Path

import numpy as np
from jaxtyping import Integer

from carina.errors import InputError, UsageError
from carina.findings import Report
from carina.geometry import Geometry
from carina.io import read_ct, read_image, write_image
from carina.report import write_report
from carina.report.files import FORMATS as FILES
from carina.serve.folder import RESULTS, StateFolder
from carina.serve.jobs import JobStore
from carina.serve.limits import Limits
from carina.serve.reviews import FILE, parse_review
from carina.volume import Volume

_SAME_MM = 0.01
"""Formats round positions by less."""


def find_report(folder: Path) -> Path:
    """The folder with ``report.json``: the one that is given, or the only one in it.

    Raises:
        UsageError: there is none, or there are several.
    """
    name = FILES["json"]
    if (folder / name).is_file():
        return folder
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder; give the folder of a case that 'carina detect' wrote")
    found = sorted(path.parent for path in folder.glob(f"*/{name}"))
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{folder} holds {len(found)} reports; give one of them, such as {found[0]}")
    raise UsageError(f"no {name} in {folder}; 'carina detect' writes it unless --format leaves json out")


def show(run: Path, ct: Path | None, folder: StateFolder, limits: Limits) -> None:
    """Fill a server's folder with one report, its CT, its mask and its review.

    Args:
        run: the folder of the report.
        ct: where the CT is; None: where the report says.
        folder: the server's; it exists and is empty.
        limits: for the review.

    Raises:
        InputError: the report cannot be read, or the CT is gone, or is another one.
    """
    report = Report.read(run / FILES["json"])
    volume = _volume(report, run, ct)
    labels = _labels(run)
    job_id = secrets.token_hex(16)
    result = folder.job(job_id) / "result"
    formats = [name for name in ("json", "csv", "html", "mask") if name != "mask" or labels is not None]
    write_report(report, result, formats, volume=volume, labels=labels)
    write_image(volume.hu, volume.geometry, result / RESULTS["volume"])
    store = JobStore(folder.database)
    store.add(job_id, series_uid=report.input.series_uid, size=0)
    store.done(job_id, findings=len(report.findings), p_malignant=report.patient.p_malignant, size=0)
    if (run / FILE).is_file():
        body = (run / FILE).read_bytes()
        parse_review(body, findings=len(report.findings), comment_chars=limits.comment_chars)
        store.set_review(job_id, body)
    store.close()


def _volume(report: Report, run: Path, ct: Path | None) -> Volume:
    path = ct or _where(report.input.path, run)
    if path is None or not path.exists():
        gone = ct or report.input.path or "the server that analysed it"
        raise InputError(f"{run}: its CT was at {gone} and is not there; say where it is with --ct")
    volume = read_ct(path, series_uid=report.input.series_uid if report.input.format == "dicom" else None)
    difference = _difference(volume.geometry, report)
    if difference is not None:
        raise InputError(f"{path}: {difference} as in the report in {run}; give its own CT with --ct")
    return volume


def _difference(found: Geometry, report: Report) -> str | None:
    """What shows that a CT is not the report's. Where the CT begins it says by its findings only."""
    wanted = report.input
    if found.shape_zyx != wanted.shape_zyx:
        return f"{found.shape_zyx} voxels, not {wanted.shape_zyx}"
    if not np.allclose(found.spacing_zyx_mm, wanted.spacing_zyx_mm, rtol=0, atol=_SAME_MM):
        return f"spacing {found.spacing_zyx_mm} mm, not {wanted.spacing_zyx_mm}"
    for finding in report.findings:
        place = found.to_lps(finding.center_zyx)
        if not np.allclose(place, finding.center_lps, rtol=0, atol=_SAME_MM):
            return f"finding {finding.id} at {place.round(2).tolist()} mm, not {finding.center_lps}"
    return None


def _where(name: str, run: Path) -> Path | None:
    """A relative path counts from where ``carina detect`` was started: here, or somewhere above its results."""
    if not name:
        return None
    places = [Path(), *run.resolve().parents]
    return next((place / name for place in places if (place / name).exists()), None)


def _labels(run: Path) -> Integer[np.ndarray, "z y x"] | None:
    path = run / FILES["mask"]
    return read_image(path)[0] if path.is_file() else None
