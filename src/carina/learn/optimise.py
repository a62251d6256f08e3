"""What one step of training is made of, beside the loss: optimizer, precision, frozen parts, averaged weights.

Must not know tasks or data.
"""

import torch
from torch import nn

from carina.errors import UsageError
from carina.learn.settings import FitSettings, Precision


def resolved_precision(device: torch.device, precision: Precision) -> Precision:
    """What "auto" means on this device."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        able = torch.cpu.get_capabilities() if device.type == "cpu" else {}
        native = bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    return "bf16" if native else "fp32"


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Mixed precision where it is asked for; gradients and weights stay float32."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=precision != "fp32")


def channels_last(model: nn.Module) -> None:
    """Keep the weights of convolutions with their channels last; activations follow them."""
    for parameter in model.parameters():
        if parameter.ndim in (4, 5):
            layout = torch.channels_last if parameter.ndim == 4 else torch.channels_last_3d
            parameter.data = parameter.data.contiguous(memory_format=layout)


def make_optimizer(model: nn.Module, settings: FitSettings) -> torch.optim.Optimizer:
    """The optimizer of the settings over all parameters that require gradients.

    Raises:
        UsageError: there are none.
    """
    parameters = trained(model)
    if not parameters:
        raise UsageError("no parameter of the model requires gradients: there is nothing to train")
    match settings.optimizer:
        case "sgd":
            return torch.optim.SGD(
                parameters, settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay
            )
        case "adam":
            return torch.optim.Adam(parameters, settings.lr, weight_decay=settings.weight_decay)
        case "adamw":
            return torch.optim.AdamW(parameters, settings.lr, weight_decay=settings.weight_decay)


def trained(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that require gradients."""
    return [p for p in model.parameters() if p.requires_grad]


def training_mode(model: nn.Module) -> None:
    """Training mode, except for parts of which no parameter requires gradients."""
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            module.eval()


@torch.no_grad()
def average(averaged: nn.Module, model: nn.Module, decay: float) -> None:
    """Move ``averaged`` towards ``model`` by 1 - decay; batch-norm statistics are copied."""
    for mean, now in zip(averaged.parameters(), model.parameters(), strict=True):
        mean.detach().lerp_(now, 1 - decay)
    for kept, current in zip(averaged.buffers(), model.buffers(), strict=True):
        kept.copy_(current)
