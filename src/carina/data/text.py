"""Text as one-hot characters and words. Must not know what it says."""

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float32
from torch import Tensor

from carina.data.table import one_hot
from carina.errors import InputError

ASCII = 128
"""Characters that have a column of their own."""
_PLAIN = dict(zip(map(ord, "\u2018\u2019\u201c\u201d\u2013\u2014"), "''\"\"--", strict=True))
"""Typographic quotes and dashes to plain ones."""


def read_text(path: str | Path) -> str:
    """Read a text file in UTF-8, with or without a byte-order mark.

    Raises:
        InputError: no such file, or another encoding.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as UTF-8 text ({error})") from error


def one_hot_characters(text: str) -> Float32[Tensor, "characters 128"]:
    """Each character as a row with a one at its ASCII code.

    Accents are taken off, typographic quotes and dashes become plain ones, and any other character beyond ASCII is
    left out.
    """
    plain = text.translate(_PLAIN)
    codes = list(unicodedata.normalize("NFKD", plain).encode("ascii", "ignore"))
    return one_hot(torch.tensor(codes, dtype=torch.int64), ASCII)


def words_of(text: str) -> list[str]:
    """The words in lower case without punctuation; an apostrophe or a hyphen inside a word stays."""
    return re.findall(r"\w+(?:['’-]\w+)*", text.lower())  # noqa: RUF001


def vocabulary_of(words: Sequence[str]) -> dict[str, int]:
    """Number of each distinct word, in alphabetical order."""
    return {word: number for number, word in enumerate(sorted(set(words)))}


def one_hot_words(text: str, vocabulary: dict[str, int] | None = None) -> Float32[Tensor, "words vocabulary"]:
    """Each word as a row with a one at its number.

    Args:
        text: its words are those of ``words_of``.
        vocabulary: number by word; None takes the text's own.

    Raises:
        InputError: a word that the vocabulary does not hold.
    """
    words = words_of(text)
    known = vocabulary_of(words) if vocabulary is None else vocabulary
    unknown = [word for word in words if word not in known]
    if unknown:
        raise InputError(f"the vocabulary of {len(known)} words does not hold {unknown[0]!r}")
    return one_hot(torch.tensor([known[word] for word in words], dtype=torch.int64), len(known))
