"""Photos as tensors: one, a folder of them, and a folder with one folder per class.

Pillow decodes; whatever a file holds becomes eight-bit red, green and blue. Must not know networks.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from carina.errors import InputError

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")
"""Files of a folder that count as photos."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures of one size with their classes.

    Attributes:
        images: red, green, blue; channels lie last in memory, so that batches of them do too.
        labels: index into ``classes``.
        classes: names, sorted.
    """

    images: UInt8[Tensor, "n 3 h w"]
    labels: Int64[Tensor, " n"]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, chosen: Int64[Tensor, " m"]) -> "Pictures":
        """Some of them, in this order."""
        return Pictures(self.images[chosen], self.labels[chosen], self.classes)


def open_photo(path: str | Path) -> Image.Image:
    """Decode a photo, upright, as red, green and blue; of 16 bits the upper eight are kept.

    Raises:
        InputError: no such file, not a picture that Pillow knows, or one whose brightest value nobody knows.
    """
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I;16"):  # Pillow's own way to eight bits cuts the values off at 255
                upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
            if upright.mode in ("I", "F"):
                raise ValueError(f"its pixels have 32 bits: Pillow's mode {upright.mode}")
            return upright.convert("RGB")
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a picture ({error}); expected JPEG, PNG or alike") from error


def picture_tensor(image: Image.Image, size_hw: tuple[int, int] | None = None) -> UInt8[Tensor, "3 h w"]:
    """A decoded picture as red, green and blue from 0 to 255, resized where a height and width are given."""
    if size_hw is not None:
        image = image.resize((size_hw[1], size_hw[0]), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def read_photo(path: str | Path) -> UInt8[Tensor, "3 h w"]:
    """Read a photo as red, green and blue from 0 to 255.

    Raises:
        InputError: as ``open_photo``.
    """
    return picture_tensor(open_photo(path))


def read_photos(
    folder: str | Path, size_hw: tuple[int, int] | None = None
) -> tuple[UInt8[Tensor, "n 3 h w"], list[str]]:
    """Read all photos of a folder, in the order of their names.

    Args:
        folder: other files in it are passed over.
        size_hw: height and width that all are resized to; None where they have one size already.

    Returns:
        The photos and their file names.

    Raises:
        InputError: none there, one that cannot be read, or sizes that differ.
    """
    files = _photos_of(Path(folder))
    return torch.from_numpy(_stack(files, size_hw)).permute(0, 3, 1, 2), [file.name for file in files]


def read_classes(folder: str | Path, size_hw: tuple[int, int] | None = None) -> Pictures:
    """Read a folder that holds one folder of photos per class.

    Args:
        folder: each of its folders is a class and names it.
        size_hw: as in ``read_photos``.

    Raises:
        InputError: no class folders, a class without photos, or as ``read_photos``.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; expected one with a folder of pictures per class")
    classes = sorted(part.name for part in root.iterdir() if part.is_dir() and not part.name.startswith("."))
    if not classes:
        raise InputError(f"{root} holds no folders; expected one folder of pictures per class")
    files = [(file, label) for label, name in enumerate(classes) for file in _photos_of(root / name)]
    images = _stack([file for file, _ in files], size_hw)
    return Pictures(
        torch.from_numpy(images).permute(0, 3, 1, 2), torch.tensor([label for _, label in files]), tuple(classes)
    )


def channel_statistics(images: UInt8[Tensor, "n 3 h w"]) -> tuple[Float[Tensor, " 3"], Float[Tensor, " 3"]]:
    """Mean and standard deviation of each channel over all pixels, with values scaled to [0, 1].

    Counted exactly, from how often each of the 256 values occurs.
    """
    values = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.stack([torch.bincount(images[:, c].flatten().int(), minlength=256) for c in range(3)]).double()
    share = counts / counts.sum(1, keepdim=True)
    mean = share @ values
    deviation = ((share * (values - mean[:, None]) ** 2).sum(1)).sqrt()
    return mean.float(), deviation.float()


def split_pictures(pictures: Pictures, held_out: float, seed: int) -> tuple[Pictures, Pictures]:
    """Shuffle and part, every class in the same proportion.

    Args:
        pictures: to be parted.
        held_out: share of each class in the second part.
        seed: of the shuffle.
    """
    generator = torch.Generator().manual_seed(seed)
    kept, held = [], []
    for label in range(len(pictures.classes)):
        members = torch.nonzero(pictures.labels == label)[:, 0]
        members = members[torch.randperm(len(members), generator=generator)]
        cut = round(held_out * len(members))
        held.append(members[:cut])
        kept.append(members[cut:])
    return pictures.take(torch.cat(kept)), pictures.take(torch.cat(held))


def _photos_of(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected one with pictures")
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in ENDINGS)
    if not files:
        raise InputError(f"{folder} holds no pictures; expected files that end in {', '.join(ENDINGS)}")
    return files


def _stack(files: list[Path], size_hw: tuple[int, int] | None) -> UInt8[np.ndarray, "n h w 3"]:
    stacked = None
    for index, file in enumerate(files):
        image = open_photo(file)
        if size_hw is not None:
            image = image.resize((size_hw[1], size_hw[0]), Image.Resampling.BILINEAR)
        if stacked is None:
            stacked = np.empty((len(files), image.height, image.width, 3), np.uint8)
        if (image.height, image.width) != stacked.shape[1:3]:
            raise InputError(
                f"{file} is {image.height} x {image.width}, {files[0].name} is {stacked.shape[1]} x "
                f"{stacked.shape[2]}: pictures of one batch have one size; name a size to resize them to"
            )
        stacked[index] = np.asarray(image)
    assert stacked is not None
    return stacked
