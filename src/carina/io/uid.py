"""Unique identifiers as DICOM writes them (PS3.5 section 9). Must not know files or images."""

import hashlib
import re

from carina.errors import InputError

_UID = re.compile(r"[0-9]+(\.[0-9]+)+")
_MOST_CHARACTERS = 64


def is_uid(text: str) -> bool:
    """Whether ``text`` is digits and dots as in a UID, of at most 64 characters.

    Leading zeros in a component, which the standard forbids, are let pass: de-identified data is full of them.
    """
    return len(text) <= _MOST_CHARACTERS and _UID.fullmatch(text) is not None


def check_uid(text: str, where: str) -> str:
    """Give ``text`` back if it is a UID.

    Args:
        text: the UID as found.
        where: the file and line, for the message.

    Raises:
        InputError: it is not.
    """
    if is_uid(text):
        return text
    raise InputError(f"{where}: {text!r} is not a series UID (digits and dots, at most 64 characters)")


def made_uid(*parts: object) -> str:
    """A UID of the 2.25 root (PS3.5 B.2: a 128-bit number) that depends on ``parts`` alone."""
    text = "/".join(str(part) for part in parts)
    return f"2.25.{int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], 'big')}"
