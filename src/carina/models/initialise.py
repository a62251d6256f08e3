"""How fresh weights are drawn. Must not know any particular network."""

import math

from torch import nn

_WITH_WEIGHTS = (nn.Linear, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def kaiming_fan_out(network: nn.Module) -> None:
    """Draw convolution and linear weights from the normal distribution of He et al. (arXiv:1502.01852).

    The variance is 2 / fan-out, which keeps the size of gradients through ReLUs; biases are drawn with standard
    deviation 1 / sqrt(fan-out).
    """
    for module in network.modules():
        if isinstance(module, _WITH_WEIGHTS):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                _, fan_out = nn.init._calculate_fan_in_and_fan_out(module.weight)
                nn.init.normal_(module.bias, std=1.0 / math.sqrt(fan_out))
