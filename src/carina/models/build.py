"""From a plain dict to a network: ``{"kind": "unet", "depth": 3}`` and the like.

The dict is stored in the model's card. Must not know weights or files.
"""

from typing import Any

from torch import nn

from carina.errors import WeightsError
from carina.models.birds import picture_network
from carina.models.linear import Line, small_network
from carina.models.nodule import NoduleNet
from carina.models.unet import UNet
from carina.models.unet3d import UNet3d

KINDS = ("unet", "unet3d", "nodule", "line", "linear", "small", "picture")
Spec = dict[str, Any]
"""``kind`` names the network; the other entries are arguments of its constructor, JSON values only."""


def build(spec: Spec) -> nn.Module:
    """Make the network that a spec describes, with fresh weights.

    Raises:
        WeightsError: no such network, or arguments that it does not take.
    """
    arguments = {name: value for name, value in spec.items() if name != "kind"}
    if "crop_zyx" in arguments:
        arguments["crop_zyx"] = tuple(arguments["crop_zyx"])
    try:
        match spec.get("kind"):
            case "unet":
                return UNet(**arguments)
            case "unet3d":
                return UNet3d(**arguments)
            case "nodule":
                return NoduleNet(**arguments)
            case "line":
                return Line(**arguments)
            case "linear":
                return nn.Linear(1, 1, **arguments)
            case "small":
                return small_network(**arguments)
            case "picture":
                return picture_network(**arguments)
            case other:
                raise WeightsError(f"no network of kind {other!r}; known kinds: {', '.join(map(repr, KINDS))}")
    except TypeError as error:
        raise WeightsError(f"the network spec {spec} cannot be built: {error}") from error
