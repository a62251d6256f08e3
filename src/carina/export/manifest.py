"""The manifest beside exported files: what each is, how its input is made, its hash, and how equal it was.

Must not know how files are made.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import msgspec

from carina.errors import WeightsError
from carina.export.parity import Parity
from carina.models.card import Card
from carina.replacing import replacing

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Artefact:
    """One network in one format.

    Attributes:
        format: name of the format, as ``carina export --to`` takes it.
        files: file names beside the manifest, with the SHA-256 of each in hexadecimal.
        size_bytes: of all files.
        runtime: what ran it for ``parity``, with version.
        note: what a user of the format must know.
        parity: how far it is from PyTorch in float64.
    """

    format: str
    files: dict[str, str]
    size_bytes: int
    runtime: str
    note: str
    parity: Parity


@dataclass(frozen=True)
class NetworkEntry:
    """One network with its artefacts.

    Attributes:
        card: constants of preprocessing, calibration, threshold and all else that is known.
        input_name: name of the input.
        input_shape: -1 where any length will do.
        input_values: how the input is made, in words.
        multiple: free heights and widths must be multiples of this.
        output_name: name of the output.
        output_shape: likewise.
        output_values: what the output means, in words.
        artefacts: the files.
    """

    card: Card
    input_name: str
    input_shape: tuple[int, ...]
    input_values: str
    multiple: int
    output_name: str
    output_shape: tuple[int, ...]
    output_values: str
    artefacts: tuple[Artefact, ...]


@dataclass(frozen=True)
class Manifest:
    """Everything in a folder of exported networks."""

    carina_version: str
    created: str
    networks: dict[str, NetworkEntry]
    schema_version: str = "1.0"


def sha256(path: Path) -> str:
    """Hash of a file's content, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_manifest(folder: Path, manifest: Manifest) -> Path:
    """Write the manifest; an existing one is replaced whole or not at all."""
    path = folder / MANIFEST
    with replacing(path) as draft:
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
    return path


def read_manifest(folder: Path) -> Manifest:
    """Read a manifest and check every file that it lists.

    Raises:
        WeightsError: missing, not a manifest, or a file is missing or has another hash.
    """
    path = folder / MANIFEST
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError as error:
        raise WeightsError(f"no {MANIFEST} in {folder}; carina export writes one") from error
    except ValueError as error:  # no JSON, other JSON, or bytes that are not UTF-8
        raise WeightsError(f"{path} is not a manifest of exported networks: {error}") from error
    for entry in manifest.networks.values():
        for artefact in entry.artefacts:
            for name, expected in artefact.files.items():
                if not (folder / name).is_file():
                    raise WeightsError(f"{path} lists {name}, which is missing; export again")
                if sha256(folder / name) != expected:
                    raise WeightsError(f"{folder / name} is damaged: its SHA-256 is not that of {path}; export again")
    return manifest
