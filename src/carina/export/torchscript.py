"""TorchScript, by tracing and by scripting; C++ programs of every age load it.

Must not know other formats.
"""

from pathlib import Path

import numpy as np
import torch

from carina.export.quiet import no_remarks
from carina.export.runner import Runner
from carina.export.subject import Subject


def write_traced(subject: Subject, path: Path) -> None:
    """Record what the network does with an example; holds for every size because no size decides what it does."""
    with no_remarks(), torch.inference_mode():
        torch.jit.trace(subject.module, (subject.example(2),)).save(str(path))


def write_scripted(subject: Subject, path: Path) -> None:
    """Compile the network's source, with its loops and conditions."""
    with no_remarks():
        torch.jit.script(subject.module).save(str(path))


def run_torchscript(path: Path) -> Runner:
    """Load either and make it callable."""
    with no_remarks():
        module = torch.jit.load(str(path), map_location="cpu")

    def run(batch: np.ndarray) -> np.ndarray:
        with no_remarks(), torch.inference_mode():
            logits: torch.Tensor = module(torch.from_numpy(batch))
        return logits.numpy()

    return run
