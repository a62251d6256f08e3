"""Where the pictures come from: a folder of class folders, or CIFAR-10 through torchvision.

Must not know networks.
"""

import warnings
from pathlib import Path

import numpy as np
import torch

from carina.data.pictures import Pictures, read_classes
from carina.errors import InputError
from carina.models.pretrained import import_torchvision

SIZE_HW = (32, 32)
"""Height and width of a picture."""
BATCHES = "cifar-10-batches-py"
"""The folder that torchvision downloads CIFAR-10 to."""
TWO = ("airplane", "bird")
"""The classes taken from CIFAR-10."""


def read_birds(folder: Path) -> tuple[Pictures, Pictures]:
    """Training and test pictures.

    Args:
        folder: ``train/CLASS/*.jpg`` and ``test/CLASS/*.jpg``, or the folder that torchvision downloaded CIFAR-10 to.

    Raises:
        InputError: neither of both.
        UsageError: CIFAR-10 is there but torchvision is not.
    """
    if (folder / "train").is_dir() and (folder / "test").is_dir():
        return read_classes(folder / "train", SIZE_HW), read_classes(folder / "test", SIZE_HW)
    if (folder / BATCHES).is_dir():
        return read_cifar10(folder, train=True, classes=TWO), read_cifar10(folder, train=False, classes=TWO)
    raise InputError(
        f"{folder} holds neither train/ and test/ with a folder of pictures per class, nor {BATCHES}/ of torchvision"
    )


def read_cifar10(folder: Path, *, train: bool, classes: tuple[str, ...] | None = None) -> Pictures:
    """Read CIFAR-10, or some of its classes.

    Args:
        folder: where torchvision downloaded it to.
        train: the 50,000 training pictures, not the 10,000 for testing.
        classes: which; None for all ten.

    Raises:
        InputError: it is not there, or damaged.
        UsageError: torchvision is not installed.
    """
    import_torchvision()
    from torchvision.datasets import CIFAR10

    try:
        with warnings.catch_warnings():
            # Its pickles name a NumPy type in a way that NumPy has since left behind.
            warnings.filterwarnings("ignore", message=".*align", category=Warning)
            data = CIFAR10(str(folder), train=train, download=False)
    except RuntimeError as error:
        raise InputError(f"{folder} does not hold CIFAR-10 as torchvision downloads it ({error})") from error
    wanted = tuple(data.classes) if classes is None else classes
    targets = np.asarray(data.targets)
    chosen = np.isin(targets, [data.class_to_idx[name] for name in wanted])
    relabel = np.full(len(data.classes), -1)
    relabel[[data.class_to_idx[name] for name in wanted]] = np.arange(len(wanted))
    images = torch.from_numpy(np.ascontiguousarray(data.data[chosen])).permute(0, 3, 1, 2)
    return Pictures(images, torch.from_numpy(relabel[targets[chosen]]), wanted)
