"""DICOMweb as a client: search (QIDO-RS), retrieve (WADO-RS) and store (STOW-RS) of PS3.18.

Must not know what is stored, nor any one server's other interfaces. Needs the extra ``pacs``.
"""

import json
import uuid
from collections.abc import Iterator, Sequence
from email.message import Message
from pathlib import Path
from typing import Any

from carina.io.uid import check_uid
from carina.pacs.http import Http, PacsError

PAGE = 200
"""Results that are asked for at a time; servers may give fewer."""

_STOW_BYTES = 64 << 20
_MOST_RESULTS = 100_000
_DUPLICATE = str(0x0111)
"""Failure reason "duplicate SOP instance": the service has it already, as after a send that was repeated."""


class DicomWeb:
    """One DICOMweb service.

    Args:
        http: its address, up to what comes before ``/studies``.
    """

    def __init__(self, http: Http) -> None:
        self._http = http

    def series(self, study_uid: str, *, modality: str | None = None) -> list[str]:
        """SeriesInstanceUIDs of a study.

        Args:
            study_uid: StudyInstanceUID.
            modality: only series of that Modality.

        Raises:
            PacsError: the service says no, or something else than expected.
        """
        query = {} if modality is None else {"Modality": modality}
        return [_text(one, "0020000E") for one in self._search(f"studies/{study_uid}/series", query)]

    def instances(self, study_uid: str, series_uid: str) -> list[str]:
        """SOPInstanceUIDs of a series.

        Raises:
            PacsError: as ``series``.
        """
        found = self._search(f"studies/{study_uid}/series/{series_uid}/instances", {})
        return [_text(one, "00080018") for one in found]

    def retrieve(self, study_uid: str, series_uid: str, sop_uid: str) -> bytes:
        """An instance as a DICOM file, in the transfer syntax in which the service has it.

        Raises:
            PacsError: as ``series``.
        """
        path = f"studies/{study_uid}/series/{series_uid}/instances/{sop_uid}"
        body, kind = self._http.get(path, accept='multipart/related; type="application/dicom"; transfer-syntax=*')
        return only_part(body, kind, f"{self._http.url}/{path}")

    def store(self, files: Sequence[Path]) -> None:
        """Store DICOM files; all of them are there when this returns.

        Raises:
            PacsError: the service refused one of them, or as ``series``.
        """
        batch: list[Path] = []
        for file in files:
            if batch and sum(f.stat().st_size for f in (*batch, file)) > _STOW_BYTES:
                self._store(batch)
                batch = []
            batch.append(file)
        if batch:
            self._store(batch)

    def _store(self, files: Sequence[Path]) -> None:
        boundary = uuid.uuid4().hex
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        content = b"".join(head + file.read_bytes() + b"\r\n" for file in files) + f"--{boundary}--\r\n".encode()
        kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
        # 409: some or all were refused; the body says which and why (PS3.18 section 10.5.3).
        answer = self._http.post("studies", content, media_type=kind, accept="application/dicom+json", expected=(409,))
        said = _decoded(answer, f"{self._http.url}/studies")
        if not isinstance(said, dict):
            raise PacsError(f"{self._http.url}/studies: answered something else than a data set")
        done = len(said.get("00081199", {}).get("Value", []))
        reasons = [_text(one, "00081197") for one in said.get("00081198", {}).get("Value", [])]
        if done + reasons.count(_DUPLICATE) != len(files):
            others = sorted({reason for reason in reasons if reason != _DUPLICATE})
            why = f" (failure reason {', '.join(others)})" if others else ""
            raise PacsError(f"{self._http.url}: stored {done} of {len(files)} instances{why}")

    def _search(self, path: str, query: dict[str, Any]) -> Iterator[dict[str, Any]]:
        offset = 0
        while offset < _MOST_RESULTS:
            body, _ = self._http.get(
                path, params=query | {"limit": PAGE, "offset": offset}, accept="application/dicom+json"
            )
            page = _decoded(body or b"[]", f"{self._http.url}/{path}")
            if not isinstance(page, list):
                raise PacsError(f"{self._http.url}/{path}: answered something else than a list")
            yield from page
            offset += len(page)
            if len(page) < PAGE:
                return
        raise PacsError(f"{self._http.url}/{path}: more than {_MOST_RESULTS} results")


def only_part(body: bytes, media_type: str, where: str) -> bytes:
    """The content of a multipart body that has one part (RFC 2046 section 5.1).

    Raises:
        PacsError: it is no multipart body, or has none or several parts.
    """
    header = Message()
    header["Content-Type"] = media_type
    boundary = header.get_param("boundary")
    if header.get_content_maintype() != "multipart" or not isinstance(boundary, str):
        raise PacsError(f"{where}: answered {media_type or 'nothing'}, expected a multipart body")
    mark = b"--" + boundary.encode("latin-1")
    # The content may hold any bytes, so that only the delimiters at both ends count.
    begin = body.find(b"\r\n\r\n", max(body.find(mark), 0))
    end = body.find(b"\r\n" + mark, begin + 4)
    if not body.lstrip(b"\r\n").startswith(mark) or begin < 0 or not body.startswith(b"--", end + 2 + len(mark)):
        raise PacsError(f"{where}: answered a multipart body without exactly one part")
    return body[begin + 4 : end]


def _decoded(body: bytes, where: str) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        raise PacsError(f"{where}: answered no JSON ({error})") from error


def _text(dataset: dict[str, Any], tag: str) -> str:
    """The only value of an attribute in the DICOM JSON model (PS3.18 annex F); UIDs are checked."""
    values = dataset.get(tag, {}).get("Value", [])
    if not values:
        raise PacsError(f"an answer without the attribute {tag}")
    text = str(values[0])
    return check_uid(text, "an answer") if dataset[tag].get("vr") == "UI" else text
