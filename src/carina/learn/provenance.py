"""What made a set of weights: command, revision, hardware. Must not know models."""

import platform
import shlex
import subprocess
import sys
from pathlib import Path

import torch

import carina


def command_line() -> str:
    """The command that runs now, without the folder that the program lies in."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def source_revision() -> str:
    """Version of the package, with the git revision where the source lies in a checkout."""
    here = Path(carina.__file__)
    try:
        # An installed package may lie inside somebody else's repository, whose revision says nothing about it.
        _git(here.parent, "ls-files", "--error-unmatch", here.name)
        revision = _git(here.parent, "describe", "--always", "--dirty", "--abbrev=12")
    except (OSError, subprocess.SubprocessError):
        return carina.__version__
    return f"{carina.__version__} ({revision})"


def _git(folder: Path, *words: str) -> str:
    found = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True, timeout=10)
    return found.stdout.strip()


def hardware(device: torch.device | str) -> str:
    """What computed, in words."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} {device.type}, {torch.get_num_threads()} threads"
