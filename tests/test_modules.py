"""How networks are put together: what counts as a part, what moves, what convolutions do in one to three axes."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional


class Holds(nn.Module):
    """Parts in every way there is to hold them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.scale = nn.Parameter(torch.ones(2))
        self.plain = torch.ones(2)
        self.register_buffer("mean", torch.zeros(2))
        self.in_a_list = [nn.Linear(2, 2)]
        self.listed = nn.ModuleList([nn.Linear(2, 2), nn.Tanh()])
        self.named = nn.ModuleDict({"head": nn.Linear(2, 1)})

    def forward(self, x: Tensor) -> Tensor:
        for part in self.listed:
            x = part(x)
        answer: Tensor = self.named["head"](x)
        return answer


def test_modules_parameters_and_buffers_register_and_plain_tensors_and_lists_do_not() -> None:
    module = Holds()
    assert [name for name, _ in module.named_parameters()] == [
        "scale",
        "layer.weight",
        "layer.bias",
        "listed.0.weight",
        "listed.0.bias",
        "named.head.weight",
        "named.head.bias",
    ]
    assert [name for name, _ in module.named_buffers()] == ["mean"]
    assert "plain" not in module.state_dict()
    assert not any("in_a_list" in name for name in module.state_dict())


def test_a_buffer_is_saved_and_not_trained() -> None:
    module = Holds()
    assert "mean" in module.state_dict()
    assert all(p is not module.mean for p in module.parameters())


def test_a_module_list_is_indexed_and_a_module_dict_is_named() -> None:
    module = Holds()
    assert isinstance(module.listed[1], nn.Tanh)
    assert list(module.named.keys()) == ["head"]
    assert module(torch.zeros(3, 2)).shape == (3, 1)


def test_a_part_that_is_replaced_takes_its_parameters_with_it() -> None:
    module = Holds()
    module.layer = nn.Identity()  # type: ignore[assignment]
    assert not any(name.startswith("layer.") for name, _ in module.named_parameters())


def test_a_function_computes_what_the_module_does_and_keeps_nothing() -> None:
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    conv = nn.Conv2d(3, 4, 3, padding=1)
    assert torch.equal(conv(x), functional.conv2d(x, conv.weight, conv.bias, padding=1))
    assert torch.equal(nn.Tanh()(x), torch.tanh(x))
    assert torch.equal(nn.MaxPool2d(2)(x), functional.max_pool2d(x, 2))
    assert not list(nn.Tanh().parameters())


def test_a_functional_dropout_must_be_told_the_mode_and_a_module_knows_it() -> None:
    x = torch.ones(1000)
    module = nn.Dropout(0.4).eval()
    assert torch.equal(module(x), x)
    assert not torch.equal(functional.dropout(x, 0.4), x)
    assert torch.equal(functional.dropout(x, 0.4, training=module.training), x)


def test_a_module_moves_in_place_and_a_tensor_does_not() -> None:
    module = nn.Linear(2, 2)
    weight = module.weight
    assert module.to(torch.float64) is module
    assert module.weight is weight
    assert weight.dtype == torch.float64
    tensor = torch.zeros(2)
    moved = tensor.to(torch.float64)
    assert moved is not tensor
    assert tensor.dtype == torch.float32


def test_a_tensor_that_is_there_already_is_not_copied() -> None:
    tensor = torch.zeros(2)
    assert tensor.to("cpu", torch.float32) is tensor
    assert tensor.to(torch.float32, copy=True) is not tensor


def test_buffers_move_with_the_module_and_plain_tensors_stay() -> None:
    module = Holds().to("meta")
    assert module.mean.device.type == "meta"  # type: ignore[union-attr]
    assert module.plain.device.type == "cpu"


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_a_convolution_slides_over_one_two_or_three_axes(dimensions: int) -> None:
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dimensions - 1](2, 5, 3)
    size = (9, 10, 11)[:dimensions]
    assert conv.weight.shape == (5, 2, *(3,) * dimensions)
    assert conv(torch.zeros(4, 2, *size)).shape == (4, 5, *(n - 2 for n in size))
    assert sum(p.numel() for p in conv.parameters()) == 5 * 2 * 3**dimensions + 5


def test_padding_keeps_the_size_and_stride_halves_it() -> None:
    x = torch.zeros(1, 1, 8, 12, 16)
    assert nn.Conv3d(1, 1, 3, padding=1)(x).shape == x.shape
    assert nn.Conv3d(1, 1, 3, padding=1, stride=2)(x).shape == (1, 1, 4, 6, 8)


def test_a_convolution_is_a_sum_of_products_that_moves_with_its_input() -> None:
    x = torch.randn(1, 1, 12, generator=torch.Generator().manual_seed(0))
    conv = nn.Conv1d(1, 1, 3, bias=False)
    kernel = conv.weight[0, 0]
    by_hand = torch.stack([(kernel * x[0, 0, i : i + 3]).sum() for i in range(10)])
    torch.testing.assert_close(conv(x)[0, 0], by_hand)
    torch.testing.assert_close(conv(x.roll(1, -1))[..., 1:], conv(x)[..., :-1])


def test_a_flat_3d_kernel_is_a_2d_convolution_of_every_slice() -> None:
    generator = torch.Generator().manual_seed(0)
    volume, weight = torch.randn(1, 2, 5, 8, 8, generator=generator), torch.randn(3, 2, 3, 3, generator=generator)
    whole = functional.conv3d(volume, weight[:, :, None])
    for z in range(5):
        torch.testing.assert_close(whole[:, :, z], functional.conv2d(volume[:, :, z], weight), atol=1e-5, rtol=1e-5)
