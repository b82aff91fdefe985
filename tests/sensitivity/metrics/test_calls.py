"""An error of a metric of the user's own names it, and what it writes into is a copy."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from bitplan.sensitivity.metrics import METRICS, Metric
from bitplan.sensitivity.metrics.calls import losses_of, probe_of
from bitplan.sensitivity.runs.exhaustive import measure
from bitplan.sensitivity.runs.outcome import Outcome
from bitplan.sensitivity.table import Measurement, MeasurementError

FULL = torch.rand(3, 4, generator=torch.Generator().manual_seed(0))
CHANGED = FULL + torch.tensor([[0.0], [0.5], [2.0]])


def mine(function: Callable[..., Any], **more: Any) -> Metric:
    return Metric("mine", "own", "output", "", function, **more)


def measured(metric: Metric) -> list[Measurement]:
    """By the loop that measures layers and evaluates plans."""
    variants = {("net", "w8a8"): contextlib.nullcontext, ("net", "w4a8"): contextlib.nullcontext}
    full, changed = (Outcome(outputs=each.clone(), kind="array") for each in (FULL, CHANGED))
    return [row for rows in measure(variants, lambda: changed, full, [metric]) for row in rows]


def squares(full: torch.Tensor, variant: torch.Tensor) -> torch.Tensor:
    return (variant - full).square().mean(1)


def of_small_changes(full: torch.Tensor, variant: torch.Tensor) -> torch.Tensor:
    losses = squares(full, variant)
    if losses.max() > 1:
        raise RuntimeError("too\nlarge")
    return losses


def leaving(full: torch.Tensor, variant: torch.Tensor) -> torch.Tensor:
    raise SystemExit(0)


def in_place(full: torch.Tensor, variant: torch.Tensor) -> torch.Tensor:
    return full.sub_(variant).square_().mean(1)


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (mine(of_small_changes), "metric mine fails on output 3 of 3, of shape (1, 4): RuntimeError: too large; "),
        (mine(of_small_changes, additive=False), "metric mine fails on outputs of shape (3, 4): RuntimeError: too"),
        (mine(leaving), "metric mine fails on output 1 of 3, of shape (1, 4): SystemExit: 0; correct it, or leave"),
        (mine(lambda a, b: (a - b).square()), "metric mine gives (3, 4) for 3 outputs; it must give a tensor of shape"),
        (mine(lambda a, b: 0.5), "metric mine gives float for 3 outputs"),
        (mine(lambda a, b: squares(a, b) * 1j), "metric mine gives complex numbers"),
    ],
)  # fmt: skip
def test_what_fails_in_the_middle_of_a_measurement_is_named(metric: Metric, message: str) -> None:
    with pytest.raises(MeasurementError) as caught:
        measured(metric)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_one_that_writes_into_what_it_gets_leaves_the_next_measurement_right() -> None:
    plain, writing = measured(mine(squares)), measured(mine(in_place))
    assert [row.mean for row in writing] == [row.mean for row in plain] and plain[0].mean > 1


def test_an_interrupt_is_none_of_its_errors() -> None:
    def interrupted(*_: object) -> Any:
        raise KeyboardInterrupt

    for call in (
        lambda: losses_of(mine(interrupted), FULL, CHANGED),
        lambda: probe_of(mine(squares, probe=interrupted), FULL, torch.Generator()),
    ):
        with pytest.raises(KeyboardInterrupt):
            call()


@pytest.mark.parametrize(
    ("probe", "message"),
    [(lambda full, generator: 1 / 0, "the probe of metric mine fails on outputs of shape (3, 4): ZeroDivisionError"),
     (lambda full, generator: full[:1], "the probe of metric mine gives (1, 4) for outputs of shape (3, 4)"),
     (lambda full, generator: None, "the probe of metric mine gives NoneType for outputs")],
)  # fmt: skip
def test_a_wrong_probe_is_named(probe: Callable[..., Any], message: str) -> None:
    with pytest.raises(MeasurementError) as caught:
        probe_of(mine(squares, probe=probe), FULL, torch.Generator())
    assert str(caught.value).startswith(message)


def test_errors_in_the_table_s_own_are_not_the_user_s() -> None:
    """They end in a report of a crash, and are not said to be wrong in what the user wrote."""
    with pytest.raises(RuntimeError, match="size"):
        losses_of(METRICS["nsr"], FULL, FULL[:, :3])
    wrong = replace(METRICS["nsr"], function=lambda a, b: a + b)
    with pytest.raises(MeasurementError, match="metric nsr fails"):
        losses_of(wrong, FULL, FULL[:, :3])
