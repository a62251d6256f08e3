"""What happened, one JSON object per line, without names and with identifiers hashed. Must not know DICOM files."""

import json
import os
import re
import threading
from datetime import UTC, datetime
from pathlib import Path

from carina.pacs.secret import Secret

_UID = re.compile(r"\b(?:2\.25\.[0-9]+|[0-9]+(?:\.[0-9]+){3,})\b")


class Audit:
    """An audit log that is only ever appended to.

    Args:
        path: the file; made where it is missing, for its owner only.
        secret: hashes identifiers, so that they cannot be guessed from the log.
    """

    def __init__(self, path: Path, secret: Secret) -> None:
        self._path = path
        self._secret = secret
        self._lock = threading.Lock()

    def write(self, event: str, **facts: object) -> None:
        """Add a line; it is on disk when this returns.

        Args:
            event: what happened, in one word.
            facts: what else is to be known: hashes, counts, AE titles, addresses, reasons. UIDs in texts are hashed;
                names and other identifiers of patients must not be given.
        """
        said = {key: self._clean(value) for key, value in facts.items() if value not in (None, "")}
        line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **said})
        with self._lock:
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(file, line.encode() + b"\n")
                os.fsync(file)
            finally:
                os.close(file)

    def _clean(self, value: object) -> object:
        """Dotted numbers become hashes, but for versions; four of them may be an address, which stays."""
        if not isinstance(value, str):
            return value
        return _UID.sub(lambda m: m[0] if _is_address(m[0]) else self._secret.key(m[0]), value)


def _is_address(text: str) -> bool:
    parts = text.split(".")
    return len(parts) == 4 and all(int(part) < 256 for part in parts)
