"""``torch.export`` programs and AOTInductor packages: the successors of TorchScript.

A program is the graph with its weights, for PyTorch; a package holds machine code made from it by a C++ compiler for
this kind of processor, run without Python. Both may have the ending ``.pt2``. Must not know other formats.
"""

import shutil
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch.export import ExportedProgram

from carina.errors import UsageError
from carina.export.quiet import no_remarks
from carina.export.runner import Runner
from carina.export.subject import Subject


@lru_cache(maxsize=1)
def exported(subject: Subject) -> ExportedProgram:
    """The network as one graph with free batch, height and width."""
    with no_remarks():
        return torch.export.export(subject.module, (subject.example(2),), dynamic_shapes=(subject.dynamic_axes(),))


def write_program(subject: Subject, path: Path) -> None:
    """Write a program; ``torch.export.load`` reads it."""
    with no_remarks():
        torch.export.save(exported(subject), path)


def run_program(path: Path) -> Runner:
    """Load a program and make it callable."""
    with no_remarks():
        return _runner(torch.export.load(path).module())


def write_aoti(subject: Subject, path: Path) -> None:
    """Compile the network for this machine's processor; takes a minute or two.

    Raises:
        UsageError: there is no C++ compiler.
    """
    if not (shutil.which("g++") or shutil.which("clang++")):
        raise UsageError("--to aoti needs a C++ compiler; install g++ or leave the format out")
    with no_remarks():
        torch._inductor.aoti_compile_and_package(exported(subject), package_path=str(path))


def run_aoti(path: Path) -> Runner:
    """Load a package and make it callable."""
    with no_remarks():
        return _runner(torch._inductor.aoti_load_package(str(path)))


def _runner(function: Callable[[torch.Tensor], torch.Tensor]) -> Runner:
    def run(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            logits: torch.Tensor = function(torch.from_numpy(batch))
        return logits.numpy()

    return run
