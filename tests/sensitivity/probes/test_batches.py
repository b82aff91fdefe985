"""What of a call holds the batch and grows with it; calls of which it cannot be told are refused."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bitplan.planner.measurement.replay import denoised_of
from bitplan.sensitivity.probes.batches import batched
from bitplan.sensitivity.probes.unroll import Step, unroll
from bitplan.sensitivity.runs.calls import RecordedCall
from bitplan.sensitivity.runs.nested import first_of, gathered, plain
from bitplan.sensitivity.table import MeasurementError


def shapes_of(*tensors: Tensor) -> list[torch.Size]:
    return [tensor.shape for tensor in tensors]


def step_of(*args: Tensor, rows: int = 2) -> Step:
    return Step(nn.Identity(), args, {}, torch.zeros(rows, 3, requires_grad=True))


def test_what_holds_the_batch_is_what_grows_with_it() -> None:
    """Tokens, steps and a batch may be as many."""
    words, times, x = torch.zeros(2, 7), torch.zeros(()), torch.zeros(2, 3)
    more = shapes_of(torch.zeros(3, 3), words, times, torch.zeros(3, 7))
    assert batched(step_of(x, words, times, words), more) == (True, False, False, True)


X = torch.zeros(2, 3)
LARGER = shapes_of(torch.zeros(3, 3), torch.zeros(3, 7))
UNTOLD: dict[str, tuple[Step, list[torch.Size], str]] = {
    "a list with a tensor for each sample": (step_of(X, X[0], X[0]), shapes_of(X, *X, X[0]), "3 tensors, and 4 with"),
    "a batch along the second dimension":
        (step_of(X, torch.zeros(7, 2)), shapes_of(torch.zeros(3, 3), torch.zeros(7, 3)), "shape (7, 2) for 2"),
    "a part of a row a sample":
        (step_of(X, torch.zeros(3, 7)), shapes_of(torch.zeros(3, 3), torch.zeros(4, 7)), "shape (3, 7) for 2"),
    "several rows for some": (step_of(X, torch.zeros(4, 7)), shapes_of(torch.zeros(3, 3), torch.zeros(5, 7)), "alike"),
    "several rows a sample in all": (step_of(torch.zeros(4, 3)), shapes_of(torch.zeros(6, 3)), "order of its own"),
    "nothing that grows": (step_of(X), shapes_of(X), "does not show"),
    "padding by the batch":
        (step_of(X, torch.zeros(2, 7)), shapes_of(torch.zeros(3, 3), torch.zeros(3, 8)), "shape (2, 7) for 2"),
    "one for all that depends on samples":
        (step_of(X, torch.zeros(1, requires_grad=True)), shapes_of(torch.zeros(3, 3), torch.zeros(1)), "depends on"),
    "outputs of other batches": (
        Step(nn.Identity(), (X,), {}, [torch.zeros(2, 3).requires_grad_(), torch.zeros(4).requires_grad_()]),
        shapes_of(torch.zeros(3, 3)), "returns (2, 3), (4,) for 2 rows",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", UNTOLD)
def test_what_cannot_be_told_is_refused(case: str) -> None:
    step, larger, hint = UNTOLD[case]
    with pytest.raises(MeasurementError, match=f"{re.escape(hint)}.*--method exhaustive"):
        batched(step, larger)


class Frames(nn.Module):
    """Has a text for each of three frames of a sample, after each other, or frame after frame."""

    def __init__(self, follow: bool) -> None:
        super().__init__()
        self.follow = follow

    def forward(self, x: Tensor, texts: Tensor) -> Tensor:
        by_frame = texts.view(len(x), 3, -1).transpose(0, 1) if self.follow else texts.view(3, len(x), -1)
        return x + (torch.tensor([1.0, 2.0, 3.0])[:, None, None] * by_frame).sum(0)


@pytest.mark.parametrize("follow", [True, False])
def test_several_rows_a_sample_must_follow_each_other(follow: bool) -> None:
    frames, x, texts = Frames(follow), torch.randn(2, 3), torch.randn(6, 3)
    step = Step(frames, (x, texts), {}, frames(x, texts).requires_grad_())
    larger = shapes_of(torch.zeros(3, 3), torch.zeros(9, 3))
    if follow:
        assert batched(step, larger) == (True, True)
    else:
        with pytest.raises(MeasurementError, match="in an order of its own; measure with --method exhaustive"):
            batched(step, larger)


class Cache:
    def __init__(self) -> None:
        self.seen: dict[str, Tensor] = {}


class Keeper(nn.Module):
    """Sees the sum of all that it was called with, which the caller holds."""

    def forward(self, x: Tensor, held: Any) -> Tensor:
        if isinstance(held, Cache):
            x = held.seen["x"] = held.seen.get("x", 0) + x
        elif isinstance(held, Tensor):
            held += x.sum()
        else:
            x = held[0] = x if held[0] is None else held[0] + x
        return 2 * x


@pytest.mark.parametrize("held", [[None], Cache()])
def test_a_call_that_keeps_something_is_refused(held: Any) -> None:
    keeper = Keeper()
    with pytest.raises(MeasurementError, match="keeps something in its arguments .* measure with --method exhaustive"):
        unroll([keeper], lambda: keeper(torch.ones(2, 3), held))


def test_what_a_call_writes_into_a_tensor_is_no_cache() -> None:
    keeper = Keeper()
    assert len(unroll([keeper], lambda: keeper(torch.ones(2, 3), torch.zeros(())))[0]) == 1


XS = [torch.ones(3), torch.zeros(3)]
GIVEN: dict[str, tuple[tuple[Any, ...], Any, tuple[int, ...]]] = {
    "a list for a list": ((XS,), ([2 * x for x in XS],), (2, 3)),
    "in a mapping": ((tuple(XS), X), {"none": None, "sample": list(XS)}, (2, 3)),
    "a list for a tensor": ((X, XS), list(XS), (3,)),
    "a tuple, such as of a sample and more": ((XS,), tuple(XS), (3,)),
    "more than samples": ((XS,), [*XS, XS[0]], (3,)),
    "of other shapes": ((XS,), [XS[0], XS[1][:2]], (3,)),
    "a batch": ((XS,), X, (2, 3)),
}


@pytest.mark.parametrize("case", GIVEN)
def test_what_a_call_is_about_is_a_batch(case: str) -> None:
    args, output, shape = GIVEN[case]
    assert tuple(first_of(gathered((args, {}), output)).shape) == shape
    assert denoised_of([RecordedCall(args, {})], [output])[0].shape == shape
    assert str(plain(gathered((args, {}), output))) == str(output)
