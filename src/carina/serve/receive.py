"""From the bytes of a request body to files on disk, bounded: one raw file, or the parts of a multipart form.

File names that the client gives are kept as words to compare, and never used as paths. Must not know what the files
hold, or which web framework the bytes come from.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import IO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from carina.serve.limits import Limits
from carina.serve.problems import ProblemError

_MOST_NAME = 300


@dataclass(frozen=True)
class Part:
    """A file that was received.

    Attributes:
        path: where it lies, under a name of ours.
        name: what the client called it, without folders; "" where it did not say.
    """

    path: Path
    name: str


def base_name(name: str) -> str:
    """The last component of a path in the way of any system, shortened."""
    return name.replace("\\", "/").rpartition("/")[2][:_MOST_NAME]


class Receiver:
    """Takes a body piece by piece.

    Args:
        content_type: the header of that name; ``multipart/form-data`` is taken apart, anything else is one file.
        folder: where the files go; it exists and is empty.
        limits: bounds on bytes and files.

    Raises:
        ProblemError: here and in ``feed`` and ``finish``, a body that is too large or malformed.
    """

    def __init__(self, content_type: str, folder: Path, limits: Limits) -> None:
        self._folder = folder
        self._limits = limits
        self._bytes = 0
        self._parts: list[Part] = []
        self._file: IO[bytes] | None = None
        self._form: MultipartParser | None = None
        kind, options = parse_options_header(content_type)
        if kind == b"multipart/form-data":
            self._form = self._parser(options.get(b"boundary", b""))
        else:
            self._open("")

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        self._bytes += len(data)
        if self._bytes > self._limits.upload_bytes:
            raise too_many_bytes(self._limits.upload_bytes)
        if self._form is None:
            self._write(data, 0, len(data))
            return
        try:
            self._form.write(data)
        except FormParserError as error:
            raise ProblemError("bad-request", f"malformed multipart form: {error}") from error

    def finish(self) -> list[Part]:
        """The files, once the body has ended."""
        if self._form is not None:
            try:
                self._form.finalize()
            except FormParserError as error:
                raise ProblemError("bad-request", f"malformed multipart form: {error}") from error
            if self._file is not None:
                raise ProblemError("bad-request", "the multipart form ends in the middle of a file")
        self.close()
        if self._bytes == 0 or not self._parts:
            raise ProblemError(
                "invalid", "the request holds no file; send a zip of DICOM, an image, or a form with files"
            )
        return self._parts

    def close(self) -> None:
        """Close the file that is being written, if any."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self, name: str) -> None:
        if len(self._parts) >= self._limits.files:
            raise ProblemError("too-large", f"more than {self._limits.files} files")
        path = self._folder / f"{len(self._parts):06d}"
        self._file = path.open("xb")
        self._parts.append(Part(path, base_name(name)))

    def _write(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(data if end - start == len(data) else memoryview(data)[start:end])

    def _parser(self, boundary: bytes) -> MultipartParser:
        if not boundary:
            raise ProblemError("bad-request", "multipart/form-data without a boundary")
        header = {"field": b"", "value": b""}
        name: list[str] = []

        def begin() -> None:
            name.clear()

        def field(data: bytes, start: int, end: int) -> None:
            header["field"] += data[start:end]

        def value(data: bytes, start: int, end: int) -> None:
            header["value"] += data[start:end]

        def header_end() -> None:
            if header["field"].lower() == b"content-disposition":
                options = parse_options_header(header["value"])[1]
                name.extend(options[key].decode("utf-8", "replace") for key in (b"filename",) if key in options)
            header.update(field=b"", value=b"")

        def headers_finished() -> None:
            if not name:
                raise ProblemError("invalid", "the form has a field that is no file; parameters go into the query")
            self._open(name[0])

        return MultipartParser(
            boundary,
            {
                "on_part_begin": begin,
                "on_header_field": field,
                "on_header_value": value,
                "on_header_end": header_end,
                "on_headers_finished": headers_finished,
                "on_part_data": self._write,
                "on_part_end": self.close,
            },
        )


def too_many_bytes(most: int) -> ProblemError:
    """The refusal of a body that is larger than ``most`` bytes."""
    return ProblemError("too-large", f"the body is larger than {most} bytes; this server takes no more")
