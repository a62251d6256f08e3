"""Networks of torchvision with the weights it publishes: photos in, ImageNet's classes or an outline out.

Weights come from a file, from torch's cache, or from the network, and are loaded without running code. Must not know
the command line.
"""

import inspect
import pickle
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal
from urllib.error import URLError

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from carina.errors import UsageError, WeightsError

Kind = Literal["classification", "segmentation"]
_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_kept_libraries: list[Any] = []


@dataclass(frozen=True)
class Architecture:
    """One network that torchvision can build.

    Attributes:
        name: also the name of the function that builds it.
        kind: what it answers.
        class_name: class of the network.
        parameters: how many.
        file: name of the file with its published weights, "" where there are none.
    """

    name: str
    kind: Kind
    class_name: str
    parameters: int
    file: str


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A network ready to run.

    Attributes:
        network: in evaluation mode.
        categories: names of its classes.
        transform: from a picture to what the network sees.
        kind: what it answers.
    """

    network: nn.Module
    categories: tuple[str, ...]
    transform: Any
    kind: Kind


def import_torchvision() -> Any:
    """Import torchvision, also where its compiled part was built for another torch.

    The networks need none of the compiled operators, but the import fails without their names (a CUDA build beside a
    CPU torch: "operator torchvision::nms does not exist"). Here the names are declared, so that the rest works.

    Raises:
        UsageError: it is not installed.
    """
    if find_spec("torchvision") is None:
        raise UsageError("this needs torchvision, which is not installed: pip install 'carina-ct[vision]'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that decoding pictures is missing, which Pillow does here
        try:
            import torchvision
        except RuntimeError as error:
            if "does not exist" not in str(error):
                raise
            library = torch.library.Library("torchvision", "FRAGMENT")
            for operator in _OPERATORS:
                library.define(operator)
            _kept_libraries.append(library)  # a library that is collected takes its operators with it
            import torchvision
        import torchvision.models.segmentation
    return torchvision


def list_architectures() -> list[Architecture]:
    """Every classifier and segmentation network that torchvision can build, by name.

    Raises:
        UsageError: torchvision is not installed.
    """
    models = import_torchvision().models
    found = []
    kinds: tuple[tuple[Kind, Any], ...] = (("classification", models), ("segmentation", models.segmentation))
    for kind, module in kinds:
        for name in models.list_models(module=module):
            built = inspect.signature(models.get_model_builder(name)).return_annotation
            weights = models.get_model_weights(name).DEFAULT
            parameters = int(weights.meta["num_params"])
            found.append(Architecture(name, kind, built.__name__, parameters, Path(weights.url).name))
    return found


def load_pretrained(name: str, weights: Path | None = None, *, download: bool = True) -> Pretrained:
    """Build a network and fill it with its published weights.

    Args:
        name: one of ``list_architectures``.
        weights: a file of its weights; None looks into torch's cache, then fetches.
        download: whether the network may be asked where the cache has none.

    Raises:
        UsageError: no such network, or torchvision is not installed.
        WeightsError: the weights are missing, damaged, or belong to another network.
    """
    kinds = {architecture.name: architecture.kind for architecture in list_architectures()}
    if name not in kinds:
        raise UsageError(f"torchvision has no network {name!r} for photos; `carina pretrained list` shows all")
    models = import_torchvision().models
    published = models.get_model_weights(name).DEFAULT
    path = _cached(published.url, download) if weights is None else weights
    state = _read_state(path)
    network: nn.Module = models.get_model(name, weights=None, **_options(models, name, state))
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()  # line 0 names the class
        raise WeightsError(f"{path} does not hold the weights of {name} ({first[:100]} ...)") from error
    return Pretrained(network.eval(), tuple(published.meta["categories"]), published.transforms(), kinds[name])


@torch.no_grad()
def classify(pretrained: Pretrained, image: Image.Image, top: int = 5) -> list[tuple[str, float]]:
    """The likeliest classes of a photo with their probabilities."""
    logits = pretrained.network(pretrained.transform(image)[None])[0]
    p, index = logits.softmax(0).topk(min(top, len(logits)))
    return [(pretrained.categories[i], float(value)) for i, value in zip(index.tolist(), p, strict=True)]


@torch.no_grad()
def segment(pretrained: Pretrained, image: Image.Image) -> Float[Tensor, "classes h w"]:
    """The probability of each class at each pixel of the photo, whatever size the network sees."""
    logits: Tensor = pretrained.network(pretrained.transform(image)[None])["out"]
    size = (image.height, image.width)
    return functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)[0].softmax(0)


def _cached(url: str, download: bool) -> Path:
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    if path.is_file():
        return path
    missing = f"no weights at {path}"
    if not download:
        raise WeightsError(f"{missing}; fetch {url} there, or name a file with --weights")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # The name ends in the first digits of the file's SHA-256, which are checked.
        torch.hub.download_url_to_file(url, str(path), hash_prefix=path.stem.rpartition("-")[2], progress=False)
    except (URLError, OSError, RuntimeError) as error:
        raise WeightsError(
            f"{missing}, and they could not be fetched from {url} ({error}); "
            "put the file there, or name it with --weights"
        ) from error
    return path


def _read_state(path: Path) -> dict[str, Tensor]:
    try:
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsError(f"no weights at {path}") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise WeightsError(f"{path} is not a readable file of weights ({error})") from error
    return state


def _options(models: Any, name: str, state: dict[str, Tensor]) -> dict[str, Any]:
    """What torchvision's function must be told so that it builds the network that these weights are of."""
    known = inspect.signature(models.get_model_builder(name)).parameters
    options: dict[str, Any] = {"weights_backbone": None} if "weights_backbone" in known else {}
    if "aux_loss" in known:
        options["aux_loss"] = any(key.startswith("aux_classifier") for key in state)
    if name in ("inception_v3", "googlenet"):
        with_aux = any(key.startswith(("AuxLogits", "aux1")) for key in state)
        options |= {"aux_logits": with_aux, "transform_input": True, "init_weights": False}
    return options
