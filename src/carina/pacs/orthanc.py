"""Orthanc's own REST interface: what is new, which instances a study has, and bringing results back.

Must not know what becomes of a study. Needs the extra ``pacs``.
"""

from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from carina.pacs.http import Http, PacsError


class Change(msgspec.Struct, frozen=True):
    """One line of Orthanc's list of changes.

    Attributes:
        number: counts up.
        kind: such as ``StableStudy``.
        resource: Orthanc's id of what changed.
    """

    number: int = msgspec.field(name="Seq")
    kind: str = msgspec.field(name="ChangeType")
    resource: str = msgspec.field(name="ID")


class _Changes(msgspec.Struct):
    changes: list[Change] = msgspec.field(name="Changes")
    last: int = msgspec.field(name="Last")
    done: bool = msgspec.field(name="Done")


class _StudyTags(msgspec.Struct):
    uid: str = msgspec.field(name="StudyInstanceUID")


class _SeriesTags(msgspec.Struct):
    uid: str = msgspec.field(name="SeriesInstanceUID")
    modality: str = msgspec.field(name="Modality", default="")


class _InstanceTags(msgspec.Struct):
    uid: str = msgspec.field(name="SOPInstanceUID")


_Tags = TypeVar("_Tags")


class _Resource(msgspec.Struct, Generic[_Tags]):
    id: str = msgspec.field(name="ID")
    tags: _Tags = msgspec.field(name="MainDicomTags")


class Instance(msgspec.Struct, frozen=True):
    """An instance of a study: Orthanc's id of it, and the UIDs of the standard."""

    id: str
    study_uid: str
    series_uid: str
    sop_uid: str


class Orthanc:
    """One Orthanc.

    Args:
        http: its address.
    """

    def __init__(self, http: Http) -> None:
        self._http = http

    def changes(self, since: int, *, limit: int = 100) -> tuple[list[Change], int, bool]:
        """What has changed since a number.

        Returns:
            The changes, the number to go on from, and whether that was all.

        Raises:
            PacsError: no answer, or one that cannot be understood.
        """
        said: _Changes = self._get("changes", _Changes, {"since": since, "limit": limit})
        return said.changes, said.last, said.done

    def last_change(self) -> int:
        """The number of the latest change.

        Raises:
            PacsError: as ``changes``.
        """
        # ``last`` without a value asks for the end of the list.
        return int(self._get("changes", _Changes, {"last": ""}).last)

    def ct_instances(self, study: str) -> list[Instance]:
        """Instances of the CT series of a study; none where the study is gone.

        Args:
            study: Orthanc's id.

        Raises:
            PacsError: as ``changes``.
        """
        found = []
        for series in self._get(f"studies/{study}/series", list[_Resource[_SeriesTags]]):
            if series.tags.modality != "CT":
                continue
            study_uid = self._get(f"studies/{study}", _Resource[_StudyTags]).tags.uid
            instances = self._get(f"series/{series.id}/instances", list[_Resource[_InstanceTags]])
            found += [Instance(one.id, study_uid, series.tags.uid, one.tags.uid) for one in instances]
        return found

    def file(self, instance: str) -> bytes:
        """An instance as a DICOM file, by Orthanc's id.

        Raises:
            PacsError: as ``changes``.
        """
        return self._http.get(f"instances/{instance}/file", accept="application/dicom")[0]

    def upload(self, file: Path) -> None:
        """Store a DICOM file; one that is there already is left as it is.

        Raises:
            PacsError: it was refused, or as ``changes``.
        """
        self._http.post("instances", file.read_bytes(), media_type="application/dicom")

    def _get(self, path: str, kind: Any, params: dict[str, Any] | None = None) -> Any:
        body, _ = self._http.get(path, params=params)
        try:
            return msgspec.json.decode(body, type=kind)
        except ValueError as error:  # no JSON, other JSON, or bytes that are not UTF-8
            raise PacsError(
                f"{self._http.url}/{path}: answered something else than an Orthanc does ({error})"
            ) from error
