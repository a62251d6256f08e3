"""The process that runs detection: models loaded once, one job after the other.

It takes orders through a pipe and answers with progress and the outcome; it knows neither the list of jobs nor HTTP,
so it can be killed at any time. It ends by itself when the process that started it is gone.
"""

import contextlib
import gzip
import logging
import os
import shutil
import signal
import traceback
import warnings
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from carina.errors import CarinaError, InputError
from carina.parent import end_with_parent
from carina.serve.folder import RESULTS
from carina.serve.limits import PIECE, Limits
from carina.serve.problems import is_no_space
from carina.serve.settings import Settings

if TYPE_CHECKING:
    from carina.pipeline import Detector

log = logging.getLogger("carina.serve")


class Order(msgspec.Struct, frozen=True):
    """A job to run: its id, its folder, and which series to take."""

    job: str
    folder: str
    series_uid: str | None


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The models are loaded and warm."""


class Progress(msgspec.Struct, frozen=True, tag=True):
    """How far the running job is: its stage, and the fraction of that stage."""

    stage: str
    done: float


class Done(msgspec.Struct, frozen=True, tag=True):
    """The result stands on disk."""

    findings: int
    p_malignant: float | None
    seconds: dict[str, float]
    series_uid: str | None


class Failed(msgspec.Struct, frozen=True, tag=True):
    """There is no result, and why; ``trace`` is for the log."""

    problem: str
    detail: str
    trace: str = ""


Message = Ready | Progress | Done | Failed


def main(pipe: Connection, settings: Settings) -> None:
    """Run until the pipe closes or the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end_with_parent()
    # pydicom's warnings and log quote values of the files, names of patients among them.
    warnings.simplefilter("ignore")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    from carina.pipeline import Detector

    def say(message: Message) -> None:
        pipe.send_bytes(msgspec.json.encode(message))

    try:
        detector = Detector.load(
            settings.weights, device=settings.device, runtime=settings.runtime, threshold=settings.threshold
        )
    except CarinaError as error:
        say(Failed("no-models", str(error)))
        return
    with contextlib.suppress(OSError):
        os.nice(3)  # requests are answered first
    with contextlib.suppress(OSError):  # and where memory runs out, it is this process that ends
        Path("/proc/self/oom_score_adj").write_text("500")
    say(Ready())
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            order = msgspec.json.decode(pipe.recv_bytes(), type=Order)
            say(_run(order, detector, settings.limits, lambda stage, done: say(Progress(stage, done))))


def _run(order: Order, detector: "Detector", limits: Limits, progress: Callable[[str, float], None]) -> Done | Failed:
    folder = Path(order.folder)
    staging = folder / "result.partial"
    shutil.rmtree(staging, ignore_errors=True)
    try:
        return analyse(folder / "input", staging, folder / "result", order, detector, limits, progress)
    except InputError as error:
        return Failed("input-refused", str(error).replace(str(folder / "input"), "upload"))
    except CarinaError as error:
        return Failed("internal", str(error).replace(str(folder), "job"))
    except MemoryError:
        return Failed("no-memory", "the CT does not fit into the server's memory")
    except Exception as error:
        if is_no_space(error):
            return Failed("no-space", "the server has no space left for the result")
        trace = "".join(traceback.format_tb(error.__traceback__)) + type(error).__name__
        return Failed("internal", "the analysis failed unexpectedly; the server's log has the trace", trace)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def analyse(
    study: Path,
    staging: Path,
    result: Path,
    order: Order,
    detector: "Detector",
    limits: Limits,
    progress: Callable[[str, float], None],
) -> Done:
    """Detect, write all files of the result, and show them at once.

    Args:
        study: the files as uploaded.
        staging: a folder on the same disk; it must not exist.
        result: the folder that appears.
        order: which job it is, and which series.
        detector: the models.
        limits: bounds on the CT.
        progress: told the stage and the fraction done.

    Raises:
        InputError: the study cannot be analysed.
        OSError: the result could not be written.
    """
    from carina.io import read_ct, write_image
    from carina.report import write_report

    progress("read", 0.0)
    check_size(study, order.series_uid, limits)
    volume = read_ct(study, series_uid=order.series_uid)
    # The report names the job, not the server's folders.
    volume = replace(volume, source=replace(volume.source, path=f"job-{order.job}"))
    detection = detector.detect(volume, progress=progress)
    progress("write", 0.0)
    write_report(
        detection.report, staging, ("json", "csv", "html", "mask"), volume=detection.volume, labels=detection.mask
    )
    write_image(volume.hu, volume.geometry, staging / RESULTS["volume"])
    _check_whole(staging / RESULTS["volume"], volume.hu.nbytes)
    _check_whole(staging / RESULTS["mask"], detection.mask.nbytes)
    shutil.rmtree(result, ignore_errors=True)
    staging.rename(result)
    report = detection.report
    return Done(len(report.findings), report.patient.p_malignant, report.seconds, report.input.series_uid)


def check_size(study: Path, series_uid: str | None, limits: Limits) -> None:
    """Refuse a CT whose header claims more than the server takes, before any voxel of it is read.

    Raises:
        InputError: too many voxels or slices.
    """
    from carina.io import list_series

    for series in list_series(study):
        wanted = series.series_uid == series_uid if series_uid else series.chosen
        if series.shape_zyx is None or not (wanted or series.format != "dicom"):
            continue
        z, y, x = series.shape_zyx
        if z > limits.slices or z * y * x > limits.voxels:
            raise InputError(
                f"the header claims {z} x {y} x {x} voxels; this server takes at most {limits.slices} slices and "
                f"{limits.voxels} voxels"
            )


def _check_whole(path: Path, voxel_bytes: int) -> None:
    """Writers of images do not notice every disk that is full: count what was written."""
    count = 0
    with gzip.open(path) as file:
        while piece := file.read(PIECE):
            count += len(piece)
    if count < voxel_bytes:
        raise OSError(28, "the image was cut short while it was written")
