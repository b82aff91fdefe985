"""An input that several layers read is rounded once, and never taken for another."""

from __future__ import annotations

import copy
import gc

import pytest
import torch

from bitplan.plans.inputs.base import ActivationScales
from bitplan.plans.inputs.integer import quantize_rows
from bitplan.plans.kernels.cpu import last_input
from bitplan.plans.kernels.cpu.last_input import LastInput
from bitplan.plans.scheme import parse_scheme

A8, A8T = parse_scheme("w8a8").inputs, parse_scheme("w8a8t").inputs


@pytest.fixture()
def calls(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    made: list[object] = []

    def counted(*args: object) -> object:
        made.append(args)
        return quantize_rows(*args)

    monkeypatch.setattr(last_input, "quantize_rows", counted)
    return made


def check(last: LastInput, x: torch.Tensor, fmt=A8, scales=None) -> None:
    for found, expected in zip(last.quantize_rows(x, fmt, scales), quantize_rows(x, fmt, scales), strict=True):
        assert torch.equal(found, expected)


def test_the_same_tensor_is_rounded_once(calls: list[object]) -> None:
    last, x = LastInput(), torch.randn(3, 5)
    for _ in range(3):
        check(last, x)
    assert len(calls) == 1


def test_what_was_written_into_is_rounded_anew(calls: list[object]) -> None:
    last, x = LastInput(), torch.randn(3, 5)
    check(last, x)
    x.mul_(-3)
    check(last, x)
    x[0] = 7
    check(last, x)
    assert len(calls) == 3


def test_another_view_another_format_and_another_range_are_others(calls: list[object]) -> None:
    last, x = LastInput(), torch.randn(3, 5)
    check(last, x)
    check(last, x[1:])
    check(last, x, A8T, ActivationScales(1.0))
    check(last, x, A8T, ActivationScales(2.0))
    check(last, x)
    assert len(calls) == 5


def test_nothing_is_held_for_longer_than_the_tensor() -> None:
    last, x = LastInput(), torch.randn(3, 5)
    check(last, x)
    assert last._held is not None
    del x
    gc.collect()
    assert last._held is None


def test_an_inference_tensor_is_rounded_each_time(calls: list[object]) -> None:
    last = LastInput()
    with torch.inference_mode():
        x = torch.randn(3, 5)
        check(last, x)
        x.mul_(2)
        check(last, x)
    assert len(calls) == 2


def test_layers_hold_no_cache() -> None:
    """What is copied or pickled with a model is the model alone."""
    from torch import nn

    from bitplan.plans.kernels import choose_kernel
    from bitplan.plans.layers.modules import quantize_module

    scheme = parse_scheme("w8a8")
    layer = quantize_module(nn.Linear(5, 4), scheme, choose_kernel(scheme, "linear"))
    x = torch.randn(3, 5)
    expected = layer(x)
    assert torch.equal(copy.deepcopy(layer)(x), expected)
    assert all(not isinstance(value, LastInput) for value in vars(layer).values())
