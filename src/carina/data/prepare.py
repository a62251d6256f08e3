"""Making the prepared store: many scans, several processes, killed and resumed at will.

Each scan is written into a folder of a temporary name, flushed, and renamed to its key; the manifest comes last. So a
folder named by a key is complete, and a command that was killed goes on where it was and ends with the same bytes.

Must not know networks or torch.
"""

import fcntl
import hashlib
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
from jaxtyping import Bool, Int16, Shaped
from tqdm import tqdm

from carina.ct.preprocess import Preprocessing, prepare_scan
from carina.data.cases import Case, Tables, find_cases
from carina.data.pool import scan_pool
from carina.data.store import FORMAT, RECORD, Manifest, Scan, Store, write_manifest
from carina.data.truth import draw_truth
from carina.errors import CarinaError, InputError
from carina.io.read import read_ct

LUNG_POINTS = 4096
"""Places in the lungs that are drawn for each scan."""

_PARTIAL = ".partial-"
_log = logging.getLogger(__name__)


def prepare(
    data: Sequence[Path],
    folder: Path,
    *,
    tables: Tables | None = None,
    preprocessing: Preprocessing | None = None,
    jobs: int = 1,
    progress: bool = False,
) -> Store:
    """Prepare all scans of some folders; those that are prepared already are not touched.

    The manifest lists exactly the scans of this call; folders of earlier settings stay until ``remove_stale``.

    Args:
        data: folders or files, see ``data.cases``.
        folder: the store; made where it is not there.
        tables: what is known about the scans.
        preprocessing: the analysis grid; the package's own when None.
        jobs: processes. Each holds one scan at a time (about 0.7 GB for 512 x 512 x 400 voxels).
        progress: show a bar with the time left on standard error.

    Returns:
        The store. Scans that could not be prepared are in ``Store.failed`` with the reason; the others go on.

    Raises:
        InputError: no scans, tables that cannot be read, or another run is writing to this store.
        CarinaError: a process died, for want of memory for example; the same command goes on.
    """
    preprocessing = preprocessing or Preprocessing()
    cases, failed = find_cases(data, tables)
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        for left in folder.glob(f"{_PARTIAL}*"):
            shutil.rmtree(left)
        scans: list[Scan] = []
        with tqdm(total=len(cases), unit="scan", desc="prepare", disable=not progress) as bar:
            for case, result in _results(cases, folder, preprocessing, jobs):
                if isinstance(result, Scan):
                    scans.append(result)
                else:
                    failed[case.series_uid] = result
                    with tqdm.external_write_mode():
                        _log.warning("%s: %s", case.series_uid, result)
                bar.update()
        scans.sort(key=lambda s: s.series_uid)
        write_manifest(folder, Manifest(FORMAT, preprocessing, tuple(scans), dict(sorted(failed.items()))))
    return Store(folder)


def remove_stale(store: Store) -> int:
    """Delete prepared scans that the manifest does not list; returns how many there were."""
    listed = {scan.key for scan in store.scans}
    stale = [f for f in store.folder.iterdir() if (f / RECORD).is_file() and f.name not in listed]
    for folder in stale:
        shutil.rmtree(folder)
    return len(stale)


def key_of(case: Case, preprocessing: Preprocessing) -> str:
    """The name of a prepared scan: a hash of source files, tables, settings and format."""
    settings = (FORMAT, preprocessing.spacing_zyx_mm, preprocessing.margin_mm, LUNG_POINTS)
    return hashlib.sha256(f"{settings!r} {case.fingerprint()}".encode()).hexdigest()[:24]


def _results(
    cases: Sequence[Case], folder: Path, preprocessing: Preprocessing, jobs: int
) -> Iterator[tuple[Case, Scan | str]]:
    """Each case with its scan or the reason why there is none, as they come."""
    if jobs <= 1:
        for case in cases:
            yield case, _prepare_case(case, folder, preprocessing)
        return
    with scan_pool(jobs) as pool:
        waiting: dict[Future[Scan | str], Case] = {}
        try:
            for case in cases:
                waiting[pool.submit(_prepare_case, case, folder, preprocessing)] = case
            for future in as_completed(waiting):
                yield waiting[future], future.result()
        except BrokenProcessPool as error:
            raise CarinaError(
                "a process that prepared a scan was ended from outside, perhaps for want of memory; run the same "
                f"command again with fewer than {jobs} --jobs: it goes on where it was"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _prepare_case(case: Case, folder: Path, preprocessing: Preprocessing) -> Scan | str:
    """Prepare one scan unless it is there; the reason in words where that fails, so that the others go on."""
    try:
        key = key_of(case, preprocessing)
        if not (folder / key).is_dir():
            _write(case, key, folder, preprocessing)
        return Scan.from_folder(folder / key)
    except CarinaError as error:
        return str(error)
    except Exception as error:
        _log.debug("%s", case.path, exc_info=True)
        return f"{type(error).__name__}: {error}"


def _write(case: Case, key: str, folder: Path, preprocessing: Preprocessing) -> None:
    volume = read_ct(case.path, series_uid=case.series_uid if case.is_dicom else None)
    prepared = prepare_scan(volume, preprocessing)
    truth = draw_truth(case, prepared, volume.geometry)
    geometry = prepared.geometry
    scan = Scan(
        key=key,
        series_uid=case.series_uid,
        patient_id=case.patient_id or volume.source.patient_id or case.series_uid,
        origin=case.origin,
        background_uid=case.background_uid,
        subset=case.subset,
        slice_thickness_mm=case.slice_thickness_mm or volume.geometry.spacing_zyx_mm[0],
        lung_litres=round(prepared.litres, 3),
        shape_zyx=geometry.shape_zyx,
        affine=msgspec.convert(geometry.affine.tolist(), tuple[tuple[float, float, float, float], ...]),
        nodules=tuple(truth.nodules),
        warnings=(*volume.source.warnings, *truth.warnings),
    )
    partial = folder / f"{_PARTIAL}{key}-{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    _save(partial / "hu.npy", prepared.hu)
    _save_sparse(partial / "label.npy", truth.label)
    _save_sparse(partial / "lung.npy", prepared.lung.astype(np.uint8))
    _save(partial / "negatives.npy", truth.negatives)
    _save(partial / "lung_points.npy", _lung_points(prepared.lung, key))
    (partial / RECORD).write_bytes(scan.to_json())
    for path in (*partial.iterdir(), partial):
        _flush(path)
    partial.rename(folder / key)
    _flush(folder)


def _lung_points(lung: Bool[np.ndarray, "z y x"], key: str) -> Int16[np.ndarray, "n 3"]:
    places = np.flatnonzero(lung)
    chosen = np.random.default_rng(int(key, 16)).choice(places, LUNG_POINTS)
    return np.stack(np.unravel_index(chosen, lung.shape), axis=1).astype(np.int16)


def _save(path: Path, array: Shaped[np.ndarray, "..."]) -> None:
    with path.open("wb") as file:
        np.save(file, array)


def _save_sparse(path: Path, array: Shaped[np.ndarray, "z y x"]) -> None:
    """Save a mask; slices without any voxel take no place on file systems that keep holes."""
    out = np.lib.format.open_memmap(path, mode="w+", dtype=array.dtype, shape=array.shape)
    for z in np.flatnonzero(array.any(axis=(1, 2))):
        out[z] = array[z]
    out.flush()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the store's lock; the system lets go of it when the process ends, however it ends."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another process is preparing {folder}; wait for it or choose another folder") from None
        yield
