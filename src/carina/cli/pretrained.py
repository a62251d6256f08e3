"""``carina pretrained``: torchvision's networks on a photo."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from carina.errors import UsageError
from carina.replacing import replacing

if TYPE_CHECKING:
    import numpy as np


@dataclass
class List:
    """List the networks that torchvision offers for photos."""

    kind: Literal["classification", "segmentation", "all"] = "all"
    """What they answer."""

    def run(self) -> None:
        """Print function, class, parameters and file of each."""
        from carina.models.pretrained import list_architectures

        offered = list_architectures()
        print(f"{'function':28s} {'class':20s} {'parameters':>12s}  answers         file of weights")
        for one in offered:
            if self.kind in (one.kind, "all"):
                print(f"{one.name:28s} {one.class_name:20s} {one.parameters:12,d}  {one.kind:14s}  {one.file}")


@dataclass
class Run:
    """Run one of them on a photo."""

    image: Annotated[Path, tyro.conf.Positional]
    """The photo."""
    model: str = "resnet101"
    """Name of the network; `carina pretrained list` shows all."""
    weights: Path | None = None
    """File of its weights; default: torch's cache, then the network."""
    offline: bool = False
    """Do not ask the network for weights."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """Segmentation: write the classes of the pixels to this PNG."""

    def run(self) -> None:
        """Print the five likeliest classes, or what share of the photo each class covers."""
        import numpy as np

        from carina.data.pictures import open_photo
        from carina.models.pretrained import classify, load_pretrained, segment

        image = open_photo(self.image)
        pretrained = load_pretrained(self.model, self.weights, download=not self.offline)
        if pretrained.kind == "classification":
            if self.output is not None:
                raise UsageError(f"{self.model} names classes of the whole photo; -o is for networks that segment")
            for name, p in classify(pretrained, image):
                print(f"{p:6.3f}  {name}")
            return
        classes = segment(pretrained, image).argmax(0).numpy()
        for index, pixels in enumerate(np.bincount(classes.flatten())):
            if pixels:
                print(f"{pixels / classes.size:6.1%}  {pretrained.categories[index]}")
        if self.output is not None:
            _write_classes(classes, self.output)
            print(f"Classes of the pixels: {self.output}")


def _write_classes(classes: "np.ndarray", path: Path) -> None:
    from PIL import Image

    picture = Image.fromarray(classes.astype("uint8")).convert("P")
    # Hues far apart for neighbouring classes; class 0 is the background and stays black.
    hues = [tuple((index * step) % 256 for step in (157, 83, 211)) for index in range(256)]
    picture.putpalette([value for hue in hues for value in hue])
    with replacing(path) as draft:
        picture.save(draft, "PNG")


@dataclass
class Pretrained:
    """Run networks of torchvision on a photo: list or run."""

    action: tyro.conf.OmitSubcommandPrefixes[
        Annotated[List, tyro.conf.subcommand("list")] | Annotated[Run, tyro.conf.subcommand("run")]
    ]
    """What to do."""

    def run(self) -> None:
        """Do it."""
        self.action.run()
