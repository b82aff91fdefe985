"""What a convolution cannot walk over is refused in words, in every kernel."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bitplan.plans.geometry import Geometry
from bitplan.plans.layers.swap import swap
from bitplan.plans.scheme import parse_scheme


def test_output_sizes_are_those_of_torch() -> None:
    layer = nn.Conv2d(1, 1, (3, 2), stride=2, padding=1, dilation=2)
    geometry = Geometry((3, 2), (2, 2), (1, 1), (2, 2))
    assert geometry.output_size(9, 8) == tuple(layer(torch.ones(1, 1, 9, 8)).shape[2:]) == (4, 4)
    with pytest.raises(ValueError, match="an input of 2x8 with its padding is smaller than the 5x3 that the kernel"):
        geometry.output_size(2, 8)


@pytest.mark.parametrize("text", ["w8a8", "w4a16"])
@pytest.mark.parametrize(
    ("shape", "words"), [((2, 4, 2, 2), "smaller than|greater than"), ((4, 8), "does not fit a conv2d layer")]
)
def test_a_packed_convolution_refuses_them(text: str, shape: tuple[int, ...], words: str) -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3))
    swap({"part": model}, {"part.0": parse_scheme(text)})
    with pytest.raises((ValueError, RuntimeError), match=words):
        model(torch.ones(shape))
