"""A secret of one installation: stable names for identifiers that nobody else can compute. Must not know DICOM."""

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from carina.errors import InputError

_BYTES = 32


class Secret:
    """Hashes identifiers with a key that stays in the folder.

    Args:
        key: random bytes.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def of(cls, path: Path) -> "Secret":
        """The secret in a file, which is made where it is missing.

        Raises:
            InputError: the file holds something else.
        """
        if not path.exists():
            new = path.with_suffix(".new")
            file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                os.write(file, secrets.token_bytes(_BYTES))
                os.fsync(file)
            finally:
                os.close(file)
            new.rename(path)
        key = path.read_bytes()
        if len(key) != _BYTES:
            raise InputError(f"{path}: {len(key)} bytes, expected {_BYTES}; it is no key that Carina made")
        return cls(key)

    def key(self, identifier: str) -> str:
        """32 hexadecimal digits that stand for an identifier."""
        return self._hash("name", identifier).hex()[:32]

    def uid(self, uid: str) -> str:
        """The UID that replaces another one, always the same (PS3.5 B.2: ``2.25.`` and 128 bits)."""
        return f"2.25.{int.from_bytes(self._hash('uid', uid)[:16], 'big')}"

    def _hash(self, purpose: str, text: str) -> bytes:
        return hmac.new(self._key, f"{purpose} {text}".encode(), hashlib.sha256).digest()
