"""Keeps converters' remarks about themselves off the terminal, each named, so that remarks about our files stay.

Must not know networks or files.
"""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from carina.io.native_stderr import caught_stderr

_REMARKS: tuple[tuple[str, type[Warning]], ...] = (
    # TorchScript is announced to go; it is written on purpose, beside its successors.
    (r"`torch\.jit\.\w+` is deprecated", DeprecationWarning),
    # PyTorch's exporter copies its own tree specifications with a call that it deprecates.
    (r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning),
    # ExecuTorch reads its own files with calls that Python deprecates, and says that its runtime is young.
    (r"(read_binary|read_text|open_text) is deprecated", DeprecationWarning),
    (r"This API is experimental", Warning),
)
_LOGGERS = (
    "torch.onnx._internal.exporter._registration",  # says for each operator of torchvision that it is not installed
    "torch.utils._pytree",  # deprecates a call that torchao makes
    "torchao",  # looks for kernels of other processors
)
_NATIVE = "[cpuinfo_utils.cpp:"
"""ExecuTorch's search for the processor's name, in files that only phones have."""


@contextmanager
def no_native_remarks() -> Iterator[None]:
    """The same for what ExecuTorch's compiled part writes to standard error."""
    with caught_stderr() as lines:
        yield
    for line in lines:
        if not line.startswith(_NATIVE):
            print(line, file=sys.stderr)  # noqa: T201 - it was on its way to the terminal


@contextmanager
def no_remarks() -> Iterator[None]:
    """Leave out the remarks listed in this module; everything else is said as ever."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for message, category in _REMARKS:
            warnings.filterwarnings("ignore", message, category)
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
