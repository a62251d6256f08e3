"""Small networks with random weights and unsettled batch norms, for tests of export."""

import torch
from torch import nn

from carina.ct.preprocess import Preprocessing
from carina.export import Subject
from carina.models import Card, build

SPECS = {
    "segmentation": {"kind": "unet", "in_channels": 7, "depth": 2, "first_filters": 2},
    "nodule": {"kind": "nodule", "first_filters": 2, "crop_zyx": [16, 16, 32]},
}


def tiny(name: str, **card: float) -> Subject:
    """The segmentation or the nodule network, small; batch norms as after training; ``card`` goes into its card."""
    torch.manual_seed(1)
    module = build(SPECS[name]).eval().requires_grad_(False)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d | nn.BatchNorm3d):
            part.running_mean.normal_(0, 0.3)
            part.running_var.uniform_(0.3, 2)
            part.weight.uniform_(0.5, 1.5)
            part.bias.normal_(0, 0.3)
    if name == "segmentation":  # else every pixel has about the same probability
        nn.init.normal_(module.head.weight)
    # Grids of their own, as shipped networks have.
    spacing = (3.0, 2.0, 2.0) if name == "segmentation" else (1.5, 1.0, 1.0)
    preprocessing = Preprocessing(spacing, crop_zyx=(16, 16, 32))
    return Subject(name, module, Card(name, name, SPECS[name], preprocessing, **card))
