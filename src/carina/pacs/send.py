"""Where results go: a DICOM node (C-STORE), a DICOMweb service (STOW-RS) or an Orthanc (REST).

Must not know what is sent. Needs the extra ``pacs``.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pynetdicom import AE, build_context

from carina.errors import UsageError
from carina.pacs.dicomweb import DicomWeb
from carina.pacs.http import Http, PacsError
from carina.pacs.orthanc import Orthanc

_NODE = re.compile(r"([^@\\]{1,16})@(.+):(\d{1,5})")


@dataclass(frozen=True)
class Node:
    """A DICOM application entity.

    Attributes:
        ae_title: its name.
        host: its address.
        port: its port.
    """

    ae_title: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Node":
        """Read ``AETITLE@HOST:PORT``.

        Raises:
            UsageError: it is something else.
        """
        match = _NODE.fullmatch(text)
        if match is None or not 0 < int(match[3]) < 65536:
            raise UsageError(f"{text!r} names no DICOM node; expected AETITLE@HOST:PORT, such as PACS@10.0.0.5:104")
        return cls(match[1].strip(), match[2].strip("[]"), int(match[3]))

    def __str__(self) -> str:
        return f"{self.ae_title}@{self.host}:{self.port}"


Destination = Node | str
"""A node, or the address of a service: ``http(s)://…`` of DICOMweb, ``orthanc+http(s)://…`` of an Orthanc."""

_DUPLICATE = 0x0111
"""Status of an instance that the node has already (PS3.7 annex C): it was sent before the program
ended, and not noted any more."""


def destination(text: str) -> Destination:
    """Read a destination from the command line.

    Raises:
        UsageError: it is neither a node nor an address.
    """
    if re.match(r"(orthanc\+)?https?://", text):
        return text
    return Node.parse(text)


def send(files: Sequence[Path], to: Destination, *, ae_title: str, sent: Callable[[Path], None]) -> None:
    """Bring DICOM files to a destination.

    Args:
        files: what to bring.
        to: where to.
        ae_title: our name, for nodes.
        sent: told each file that has arrived.

    Raises:
        PacsError: the destination cannot be reached, or it refused a file; those before have arrived.
    """
    if isinstance(to, Node):
        _c_store(files, to, ae_title, sent)
        return
    with Http(to.removeprefix("orthanc+")) as http:
        for file in files:
            if to.startswith("orthanc+"):
                Orthanc(http).upload(file)
            else:
                DicomWeb(http).store([file])
            sent(file)


def _c_store(files: Sequence[Path], node: Node, ae_title: str, sent: Callable[[Path], None]) -> None:
    kinds = {}
    for file in files:
        header = dcmread(file, specific_tags=["SOPClassUID"])
        kinds[file] = (str(header.SOPClassUID), str(header.file_meta.TransferSyntaxUID))
    ae = AE(ae_title)
    ae.acse_timeout = ae.connection_timeout = 20
    ae.dimse_timeout = ae.network_timeout = 120
    contexts = [build_context(sop_class, syntax) for sop_class, syntax in dict.fromkeys(kinds.values())]
    association = ae.associate(node.host, node.port, contexts=contexts, ae_title=node.ae_title)
    if not association.is_established:
        why = "it rejected the association" if association.is_rejected else "no association came about"
        raise PacsError(f"{node}: {why}")
    try:
        for file in files:
            try:
                status = association.send_c_store(file)
            except (ValueError, RuntimeError) as error:
                # No agreed presentation context, or the association ended meanwhile.
                raise PacsError(f"{node}: {error}") from error
            # Warnings of C-STORE are B0xx (PS3.4 table B.2-1): stored all the same.
            code = status.get("Status")
            if code is None or not (code in (0, _DUPLICATE) or code >> 8 == 0xB0):
                said = "did not answer" if code is None else f"refused it with status {code:04X}H"
                raise PacsError(f"{node}: {said} ({file.name})")
            sent(file)
    finally:
        association.release()
