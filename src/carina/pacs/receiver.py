"""A DICOM node that takes CT images in: Verification and Storage SCP (PS3.4 annexes A and B).

Must not know what becomes of a study. Needs the extra ``pacs``.
"""

import logging
import threading
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import cast

from pydicom import dcmread
from pydicom.uid import (
    JPEG2000,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    LegacyConvertedEnhancedCTImageStorage,
    RLELossless,
)
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from pynetdicom.transport import ThreadedAssociationServer

from carina.errors import UsageError
from carina.io.uid import is_uid
from carina.pacs.queue import NoSpaceError, Origin, Queue

log = logging.getLogger("carina.pacs")

ACCEPTED = (CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
"""What may be stored; the results of an analysis are not among it, so that no loop can arise."""

SYNTAXES = [
    ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless, JPEGLosslessSV1,
    JPEGLossless, JPEGLSLossless, JPEG2000Lossless, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000,
]  # fmt: skip

SUCCESS, OUT_OF_RESOURCES, NOT_OF_THAT_CLASS, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xA900, 0xC000
"""Statuses of C-STORE (PS3.4 table B.2-1)."""

_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")


@dataclass
class _Transfer:
    """What one association brought so far."""

    studies: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    bytes: int = 0
    refused: bool = False


class Receiver:
    """Listens until it is closed; everything that it takes in goes to the queue.

    Args:
        queue: where instances go.
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        ae_title: its name; senders that call another one are rejected.
        allowed: AE titles that may connect; empty: all.
        most_bytes: a longer instance ends its association.
        idle_s: an association on which nothing comes for that long is ended.

    Attributes:
        port: the port that it listens on.

    Raises:
        UsageError: the port cannot be had.
    """

    def __init__(
        self,
        queue: Queue,
        *,
        host: str,
        port: int,
        ae_title: str,
        allowed: Sequence[str] = (),
        most_bytes: int = 1 << 30,
        idle_s: float = 30.0,
    ) -> None:
        self._queue = queue
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._transfers: dict[Association, _Transfer] = {}
        ae = AE(ae_title)
        ae.require_called_aet = True
        ae.require_calling_aet = list(allowed)
        ae.maximum_associations = 10
        ae.acse_timeout = ae.dimse_timeout = 30
        ae.network_timeout = idle_s
        ae.add_supported_context(Verification)
        for sop_class in ACCEPTED:
            ae.add_supported_context(sop_class, SYNTAXES)
        handlers = [
            (evt.EVT_ACCEPTED, self._accepted),
            (evt.EVT_REJECTED, self._rejected),
            (evt.EVT_PDU_RECV, self._measure),
            (evt.EVT_C_ECHO, self._echo),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_RELEASED, self._released),
            (evt.EVT_ABORTED, self._aborted),
            (evt.EVT_CONN_CLOSE, self._closed),
        ]
        try:
            server = ae.start_server((host, port), block=False, evt_handlers=handlers)  # type: ignore[arg-type]
        except (OSError, OverflowError) as error:  # the second for a number that no port has
            reason = getattr(error, "strerror", None) or error
            raise UsageError(f"cannot listen on {host}:{port} ({reason})") from error
        assert isinstance(server, ThreadedAssociationServer)
        assert server.socket is not None
        self._server = server
        self.port: int = server.socket.getsockname()[1]

    def close(self) -> None:
        """Stop listening, and end all associations."""
        self._server.shutdown()
        for association in list(self._transfers):
            association.abort()

    def _accepted(self, event: Event) -> None:
        with self._lock:
            self._transfers[event.assoc] = _Transfer()
        self._note("connected", event)

    def _rejected(self, event: Event) -> None:
        self._note("rejected", event)

    def _echo(self, event: Event) -> int:
        self._transfers[event.assoc].bytes = 0
        self._note("echo", event)
        return SUCCESS

    def _measure(self, event: Event) -> None:
        """Count what has come since the last whole instance, before it can fill the memory."""
        transfer = self._transfers.get(event.assoc)
        if transfer is None or not isinstance(event.pdu, P_DATA_TF):
            return
        transfer.bytes += event.pdu.pdu_length
        if transfer.bytes > self._most_bytes + (1 << 20):
            self._note("refused", event, reason=f"an instance of more than {self._most_bytes} bytes")
            transfer.bytes = 0
            event.assoc.abort(block=False)

    def _store(self, event: Event) -> int:
        transfer = self._transfers[event.assoc]
        transfer.bytes = 0
        try:
            data = event.encoded_dataset()
            header = dcmread(BytesIO(data), stop_before_pixels=True, specific_tags=list(_UIDS))
            study, series, instance, sop_class = (str(header.get(name, "")) for name in _UIDS)
        except Exception as error:  # whatever a damaged data set provokes in the parser is the sender's
            self._note("refused", event, reason=f"not DICOM ({type(error).__name__})")
            return CANNOT_UNDERSTAND
        if not all(is_uid(uid) for uid in (study, series, instance)):
            self._note("refused", event, reason="an instance without the UIDs of study, series and instance")
            return CANNOT_UNDERSTAND
        announced = cast(C_STORE, event.request)
        if (instance, sop_class) != (announced.AffectedSOPInstanceUID, announced.AffectedSOPClassUID):
            self._note("refused", event, reason="an instance that is not the one announced")
            return NOT_OF_THAT_CLASS
        try:
            new = self._queue.add(study, series, instance, data, self._origin(event))
        except (NoSpaceError, OSError) as error:
            transfer.refused = True
            self._note("refused", event, reason=str(error))
            log.error("an instance was refused: %s", error)
            return OUT_OF_RESOURCES
        transfer.studies[study]["new" if new else "known"] += 1
        return SUCCESS

    def _released(self, event: Event) -> None:
        self._end(event, "received", whole=True)

    def _aborted(self, event: Event) -> None:
        # That nothing comes between two instances is no sign of a lost sender: some keep their associations open.
        transfer = self._transfers.get(event.assoc)
        idle = event.assoc.dul.idle_timer_expired() and transfer is not None and not transfer.bytes
        self._end(event, "received" if idle else "aborted", whole=idle)

    def _closed(self, event: Event) -> None:
        self._end(event, "cut off", whole=False)

    def _end(self, event: Event, what: str, *, whole: bool) -> None:
        with self._lock:
            transfer = self._transfers.pop(event.assoc, None)
            if transfer is None:
                return
            elsewhere = {study for other in self._transfers.values() for study in other.studies}
        for study, counts in transfer.studies.items():
            self._note(what, event, study=self._queue.study(study).key, **counts)
            if whole and not transfer.refused and study not in elsewhere:
                self._queue.finished(study)

    def _origin(self, event: Event) -> Origin:
        requestor = event.assoc.requestor
        return Origin(ae_title=str(requestor.ae_title).strip(), address=str(requestor.address or ""))

    def _note(self, what: str, event: Event, **facts: object) -> None:
        origin = self._origin(event)
        self._queue.audit.write(what, ae_title=origin.ae_title, address=origin.address, **facts)
