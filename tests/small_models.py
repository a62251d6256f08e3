"""Small networks for tests of the pipeline: random ones, and ones whose answer is known beforehand."""

import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from carina.hu import normalise
from carina.models.build import build
from carina.models.card import Card, save_model
from carina.pipeline.runtime import Network

CPU = torch.device("cpu")
CLIP_HU = (-1000.0, 400.0)


def random_network(folder: Path, task: str, **spec: Any) -> Network:
    """A network with random weights and batch statistics that matter."""
    torch.manual_seed(0)
    module = build(spec)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d | nn.BatchNorm3d):
            part.running_mean.uniform_(-0.2, 0.2)
            part.running_var.uniform_(0.5, 2.0)
    save_model(folder / task, module, Card("random", task, spec))
    return Network.load(folder / task, CPU)


def bright_spot_unet(above_hu: float) -> nn.Module:
    """A U-Net that marks every voxel brighter than ``above_hu``: it passes the middle slice on and cuts it."""
    module = build({"kind": "unet", "in_channels": 3, "depth": 2, "first_filters": 1})
    cut = float(normalise(np.array([above_hu]), CLIP_HU)[0])
    with torch.no_grad():
        for parameter in (p for part in module.modules() if isinstance(part, nn.Conv2d) for p in part.parameters()):
            parameter.zero_()
        module.up[0].up.weight.zero_()
        module.up[0].up.bias.zero_()
        module.down[0][0].weight[0, 1, 1, 1] = 1
        module.down[0][0].bias[0] = 1  # [-1, 1] to [0, 2], so that ReLU changes nothing
        module.down[0][3].weight[0, 0, 1, 1] = 1
        module.up[0].block[0].weight[0, 1, 1, 1] = 1
        module.up[0].block[3].weight[0, 0, 1, 1] = 1
        module.head.weight[:] = 20
        module.head.bias[:] = -20 * (cut + 1)
    return module


def sure_nodule_net(p_nodule: float) -> nn.Module:
    """A nodule network that says ``p_nodule`` of everything."""
    module = build({"kind": "nodule", "first_filters": 1})
    with torch.no_grad():
        module.head.weight.zero_()
        module.head.bias[:] = torch.tensor([0.0, np.log(p_nodule / (1 - p_nodule))])
    return module


def save_known_models(
    folder: Path, *, above_hu: float = 200.0, p_nodule: float = 0.9, threshold: float = 0.5, flips: int = 1
) -> Path:
    """All models of a detector that finds bright spots in the lungs and trusts each as much."""
    unet = {"kind": "unet", "in_channels": 3, "depth": 2, "first_filters": 1}
    card = Card("bright spots", "segmentation", unet, threshold=0.5, min_volume_mm3=20.0, flips=flips)
    save_model(folder / "segmentation", bright_spot_unet(above_hu), card)
    card = Card("sure", "nodule", {"kind": "nodule", "first_filters": 1}, threshold=threshold)
    save_model(folder / "nodule", sure_nodule_net(p_nodule), card)
    shutil.copy(str(files("carina") / "weights" / "malignancy.json"), folder / "malignancy.json")
    return folder
