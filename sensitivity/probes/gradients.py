"""Gradients of the model's own operations, and one sentence where there are none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from bitplan.sensitivity.shortage import is_shortage
from bitplan.sensitivity.table import MeasurementError


def gradients_of(outputs: Any, inputs: Sequence[Tensor], cotangents: Any) -> list[Tensor]:
    """The gradients on tensors of a run, 0 where there are none. Raises MeasurementError if torch cannot compute them,
    such as after a write into a tensor that an earlier operation needs."""
    options = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
    with differentiating("what the pipeline computes between its modules"):
        return list(torch.autograd.grad(outputs, inputs, cotangents, **options))


@contextmanager
def differentiating(what: str) -> Iterator[None]:
    """Turns what torch, or a backward of the model's own, raises within the `with` into a MeasurementError. Errors of
    BitPlan and of too little memory pass through."""
    try:
        yield
    except Exception as error:  # a backward may raise anything
        if is_shortage(error) or type(error).__module__.partition(".")[0] == "bitplan":
            raise
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise MeasurementError(
            f"{what} cannot be differentiated: {reason}; measure with --method exhaustive"
        ) from error
