"""To which sample the rows of a call belong, in the orders in which samplers call their denoisers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bitplan.sensitivity.probes.owners import Owners, owners_of
from bitplan.sensitivity.probes.unroll import frozen, unroll
from tests.odd.outside import FRAMES, OUTSIDE
from tests.odd.parts import INSIDE, WIDTH, Denoise, Net, made

SAMPLES = 70  # more than two digits tell apart
EXPECTED = {
    "stacked": [*range(SAMPLES)] * 2,
    "interleaved": [i for i in range(SAMPLES) for _ in range(2)],
    "frames as (b f)": [i for i in range(SAMPLES) for _ in range(FRAMES)] * 2,
    "frames as (f b)": [i for i in range(SAMPLES) for _ in range(2)] * FRAMES,
    "flipped in one step": [*reversed(range(SAMPLES))],
    "a row without effect": [i for i in range(SAMPLES) for _ in range(2)],
}


def owners(
    call: Callable[[Denoise, Tensor], Tensor], samples: int = SAMPLES, dtype: torch.dtype = torch.float32
) -> list[Owners]:
    """Those of the calls of a net; the result is what `call` returns for its start."""
    net = made(Net).to(dtype)
    start = torch.randn(samples, WIDTH, generator=torch.Generator().manual_seed(4)).to(dtype)
    with frozen([net]):
        steps, result = unroll([net], lambda: call(net, start))
        return owners_of(steps, result, range(len(steps)))


def known(x: Tensor) -> Tensor:
    return torch.linspace(0, 1, len(x) * INSIDE).view(len(x), INSIDE).to(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("how", OUTSIDE)
def test_each_row_belongs_to_the_sample_that_it_acts_on(how: str, dtype: torch.dtype) -> None:
    def call(net: Denoise, x: Tensor) -> Tensor:
        return x.float() - 0.3 * OUTSIDE[how](net, x, 0.0, known(x)).float()

    assert owners(call, dtype=dtype) == [tuple(EXPECTED[how])]


def test_rows_that_act_by_way_of_a_later_call_belong_to_the_samples_of_its_rows() -> None:
    def call(net: Denoise, x: Tensor) -> Tensor:
        turned = OUTSIDE["interleaved"](net, x, 0.0, known(x)).flip(0)
        return OUTSIDE["frames as (f b)"](net, turned, 0.5, known(x))

    turned = tuple(i for i in reversed(range(5)) for _ in range(2))
    assert owners(call, 5) == [turned, (0, 0, 1, 1, 2, 2, 3, 3, 4, 4) * FRAMES]


def test_rows_that_act_on_several_samples_belong_to_none_nor_those_that_act_by_way_of_them() -> None:
    def call(net: Denoise, x: Tensor) -> Tensor:
        mixed = net(net(x, 0.0, known(x)), 0.25, known(x))
        x = x - 0.3 * (mixed + mixed.roll(1, 0))
        return x - 0.3 * net(x, 0.5, known(x))

    assert owners(call, 3) == [None, None, (0, 1, 2)]


def test_a_row_without_effect_has_no_sample_if_the_others_are_in_no_order() -> None:
    def call(net: Denoise, x: Tensor) -> Tensor:
        order = torch.tensor([2, 0, 1, 0])
        return x - net(x[order], 0.0, known(x)[order])[torch.tensor([1, 2, 0])]

    assert owners(call, 3) == [None]


def test_one_sample_owns_all_rows() -> None:
    assert owners(lambda net, x: OUTSIDE["stacked"](net, x, 0.0, known(x)), 1) == [(0, 0)]
