"""From the files of an upload to the folder of a study that ``carina.read_ct`` reads.

Members of archives are taken by their index and written under names of ours; what a client calls its files decides
nothing but which data belong to which MetaImage header, whose pointer is rewritten. What an archive claims about
itself is not believed: bytes are counted as they come out.

Must not know requests or jobs.
"""

import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from carina.serve.limits import MIB, PIECE, Limits
from carina.serve.problems import ProblemError
from carina.serve.receive import Part, base_name
from carina.serve.sniff import Kind, data_file_of, kind_of

_ENDINGS: dict[Kind, str] = {
    "dicom": ".dcm",
    "nifti": ".nii",
    "nifti-gz": ".nii.gz",
    "nrrd": ".nrrd",
    "metaimage": ".mha",
    "metaimage-header": ".mhd",
}

_SLACK = 16 * MIB
"""What an archive may unpack to whatever its ratio: small ones of blank images compress very well."""

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Python unpacks the others by whole blocks: a few hundred bytes fill hundreds of MiB before any is counted."""

_DIRECTORY_BYTES = 512
"""An archive's list of contents may take so many bytes per file that is allowed."""


def unpack(parts: Sequence[Part], folder: Path, limits: Limits) -> None:
    """Sort an upload into a folder.

    Args:
        parts: the files as received; DICOM and images are moved, archives are unpacked.
        folder: where the study goes; it exists and is empty.
        limits: bounds on files and bytes.

    Raises:
        ProblemError: too much, damaged, or nothing that could be a CT.
    """
    study = _Study(folder, limits)
    for part in parts:
        study.take(part)
    study.finish()


class _Study:
    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder = folder
        self._limits = limits
        self._count = 0
        self._bytes = 0
        self._kept = 0
        self._headers: list[Path] = []
        self._data: list[Part] = []

    def take(self, part: Part, *, from_archive: bool = False) -> None:
        """Sort one file in; archives are opened, except those inside of archives."""
        kind = kind_of(part.path)
        if kind == "zip":
            if from_archive:
                raise ProblemError("unsupported", "an archive inside of an archive; send one zip of files")
            for member in self._members(part.path):
                self.take(member, from_archive=True)
            part.path.unlink()
            return
        if not from_archive:
            self._add(part.path.stat().st_size)
        if part.name.upper() == "DICOMDIR":
            part.path.unlink()
        elif kind == "other":
            self._data.append(part)
        else:
            path = self._folder / f"{self._count:06d}{_ENDINGS[kind]}"
            part.path.rename(path)
            self._kept += 1
            if kind == "metaimage-header":
                self._headers.append(path)

    def finish(self) -> None:
        """Give headers their data, and drop what belongs to nothing."""
        for header in self._headers:
            self._join(header)
        for part in self._data:
            part.path.unlink(missing_ok=True)
        if not self._kept:
            raise ProblemError(
                "invalid", "no DICOM and no image among the files; send a zip of DICOM, .mha, .mhd with .raw, .nii.gz"
            )

    def _add(self, size: int) -> None:
        self._count += 1
        self._bytes += size
        if self._count > self._limits.files:
            raise ProblemError("too-large", f"more than {self._limits.files} files")
        if self._bytes > self._limits.unpacked_bytes:
            raise ProblemError("too-large", f"the files take more than {self._limits.unpacked_bytes} bytes unpacked")

    def _members(self, path: Path) -> Iterator[Part]:
        """The files of an archive one by one, each on disk."""
        most = max(_SLACK, int(path.stat().st_size * self._limits.unpack_ratio))
        before = self._bytes
        try:
            with path.open("rb") as file:
                _check_directory(file, self._limits.files)
                with zipfile.ZipFile(file) as archive:
                    for member in archive.infolist():
                        if member.is_dir():
                            continue
                        if member.flag_bits & 1:
                            raise ProblemError("unsupported", "the archive is encrypted; send it without a password")
                        if member.compress_type not in _METHODS:
                            raise ProblemError("unsupported", "the archive is packed by another method than deflate")
                        if member.header_offset < 0:
                            raise zipfile.BadZipFile("a file of it begins before the archive")
                        self._add(0)
                        target = path.with_name(f"{path.name}-{self._count:06d}")
                        with archive.open(member) as source, target.open("xb") as out:
                            while piece := source.read(PIECE):
                                self._bytes += len(piece)
                                if self._bytes - before > most:
                                    raise ProblemError(
                                        "too-large",
                                        f"the archive unpacks to over {self._limits.unpack_ratio:g} times its size",
                                    )
                                if self._bytes > self._limits.unpacked_bytes:
                                    raise ProblemError(
                                        "too-large",
                                        f"the archive unpacks to more than {self._limits.unpacked_bytes} bytes",
                                    )
                                out.write(piece)
                        yield Part(target, base_name(member.filename))
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, struct.error, ValueError) as error:
            raise ProblemError("invalid", f"the archive cannot be read: {error}") from error

    def _join(self, header: Path) -> None:
        with header.open("rb") as file:
            text = file.read(MIB)
        wanted = base_name(data_file_of(header))
        found = [part for part in self._data if part.name.lower() == wanted.lower()]
        if len(found) != 1:
            raise ProblemError(
                "invalid", f"a MetaImage header (.mhd) needs its data file among the files; {len(found)} have its name"
            )
        data = header.with_suffix(".zraw" if wanted.lower().endswith(".zraw") else ".raw")
        found[0].path.rename(data)
        self._data.remove(found[0])
        lines = [line for line in text.split(b"\n") if b"ElementDataFile" not in line]
        header.write_bytes(b"\n".join(lines).rstrip() + b"\nElementDataFile = " + data.name.encode() + b"\n")


def _check_directory(file: IO[bytes], files: int) -> None:
    """Refuse an archive whose list of contents alone would fill the memory (APPNOTE.TXT 4.3.14 to 4.3.16)."""
    size = file.seek(0, 2)
    file.seek(max(0, size - 66_000))
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < 22:
        raise ProblemError("invalid", "the archive is cut short: it has no list of contents")
    directory = struct.unpack_from("<I", tail, at + 12)[0]
    locator = tail.rfind(b"PK\x06\x07", 0, at)
    if locator >= 0:
        file.seek(min(size, struct.unpack_from("<Q", tail, locator + 8)[0]))
        record = file.read(56)
        if record[:4] == b"PK\x06\x06" and len(record) == 56:
            directory = struct.unpack_from("<Q", record, 40)[0]
    if directory > files * _DIRECTORY_BYTES:
        raise ProblemError("too-large", f"the archive lists more than {files} files")
    file.seek(0)
