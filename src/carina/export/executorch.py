"""ExecuTorch ``.pte`` files for phones, with XNNPACK's kernels; run in ExecuTorch's Python runtime.

ExecuTorch has no 3-D convolutions, so the 3-D network is folded first. One sample at a time; slices of any height and
width up to ``LONGEST``. Must not know other formats.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from carina.errors import UsageError
from carina.export.fold_depth import FoldedNodule, scales_for_norms
from carina.export.quiet import no_native_remarks, no_remarks
from carina.export.runner import Runner
from carina.export.subject import Subject
from carina.models.nodule import NoduleNet
from carina.models.unet3d import UNet3d

LONGEST = 512
"""Longest height and width of slices; the file reserves memory for them."""


def folded(subject: Subject) -> nn.Module:
    """The network with layers that ExecuTorch has.

    Raises:
        UsageError: it has 3-D layers that cannot be folded.
    """
    if isinstance(subject.module, NoduleNet):
        z, y, x = subject.input_shape[2:]
        return FoldedNodule(subject.module, (z, y, x)).eval()
    if isinstance(subject.module, UNet3d):
        raise UsageError(f"{subject.name}: the 3-D U-Net cannot be folded for ExecuTorch; leave executorch out")
    return scales_for_norms(subject.module).eval()


def write_executorch(subject: Subject, path: Path) -> None:
    """Write the network for ExecuTorch."""
    with no_remarks():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        axes = subject.dynamic_axes(batch=False, longest=LONGEST)
        program = torch.export.export(folded(subject), (subject.example(1),), dynamic_shapes=(axes,) if axes else None)
        lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
        path.write_bytes(lowered.to_executorch().buffer)


def run_executorch(path: Path) -> Runner:
    """Load the file in ExecuTorch's Python runtime."""
    with no_remarks(), no_native_remarks():
        from executorch.runtime import Runtime

        method = Runtime.get().load_program(path).load_method("forward")
    assert method is not None

    def run(batch: np.ndarray) -> np.ndarray:
        with no_native_remarks():
            logits: torch.Tensor = method.execute([torch.from_numpy(batch)])[0]
        return logits.numpy().copy()

    return run
