"""Float tensors that a file mapped anywhere are copied to where torch allocates, and nothing else is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bitplan.plans.kernels import choose_kernel
from bitplan.plans.layers.alignment import ALIGNMENT, align, is_misaligned
from bitplan.plans.layers.modules import quantize_module
from bitplan.plans.layers.stored import Stored
from bitplan.plans.scheme import parse_scheme


def at(tensor: Tensor, offset: int) -> Tensor:
    """A copy that begins `offset` bytes behind a multiple of `ALIGNMENT`."""
    raw = torch.empty(tensor.nbytes + 2 * ALIGNMENT, dtype=torch.uint8)
    start = -raw.data_ptr() % ALIGNMENT + offset
    found = raw[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape).copy_(tensor)
    assert found.data_ptr() % ALIGNMENT == offset
    return found


@pytest.mark.parametrize("offset", [4, 8, 16, 32, 60])
def test_what_begins_elsewhere_is_copied_and_gives_the_same_bits(offset: int) -> None:
    layer, x = nn.Linear(320, 77), torch.randn(3, 320)
    expected = layer(x)
    layer.weight.data, bias = at(layer.weight.data, offset), layer.bias.data_ptr()
    weight = layer.weight
    assert align(layer) == weight.nbytes == 320 * 77 * 4
    assert layer.weight is weight and weight.data_ptr() % ALIGNMENT == 0 and layer.bias.data_ptr() == bias
    assert torch.equal(layer(x), expected)
    assert align(layer) == 0


def test_buffers_ties_strides_and_types() -> None:
    module = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3))
    module[0].weight = module[2].weight  # type: ignore[assignment]
    last = torch.randn(4, 3, 3, 4)
    module[0].weight.data = at(last, 8).movedim(-1, 1)  # type: ignore[operator]
    module[1].running_mean = at(torch.randn(4).half(), 2)  # type: ignore[assignment]
    module.register_buffer("numbers", at(torch.arange(4), 8))
    numbers = module.numbers.data_ptr()  # type: ignore[union-attr, operator]
    assert align(module) == last.nbytes + 8
    assert module[0].weight is module[2].weight and torch.equal(module[0].weight.movedim(1, -1), last)  # type: ignore[operator, arg-type]
    assert module[0].weight.movedim(1, -1).is_contiguous()  # type: ignore[operator]
    assert module.numbers.data_ptr() == numbers  # type: ignore[union-attr, operator]


def test_codes_and_scales_stay_mapped() -> None:
    scheme = parse_scheme("w8a8")
    layer = quantize_module(nn.Linear(64, 5), scheme, choose_kernel(scheme, "linear"))
    layer.codes, layer.scale = (Stored(at(tensor.data, 4)) for tensor in (layer.codes, layer.scale))
    layer.bias.data = at(layer.bias.data, 4)
    places = layer.codes.data_ptr(), layer.scale.data_ptr()
    assert align(layer) == layer.bias.nbytes
    assert (layer.codes.data_ptr(), layer.scale.data_ptr()) == places and not is_misaligned(layer.codes)
    assert align(nn.Linear(3, 3, device="meta")) == 0
