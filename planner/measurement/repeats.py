"""Finds denoisers whose calls depend on earlier ones: a measurement repeats single calls."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from bitplan.planner.measurement.replay import call_again, denoised_of, evenly_spaced
from bitplan.planner.measurement.worker import Worker
from bitplan.planner.pipelines.subject import run_subject
from bitplan.plans.dtypes import FLOAT32
from bitplan.sensitivity.runs.calls import recorded_calls
from bitplan.sensitivity.runs.nested import copied

ROUNDING = {FLOAT32: 1e-3}  # difference of two equal runs, relative to the output, that is rounding
ROUGH = 0.05  # the same in 16 bits
CALLS = 4  # of each denoiser that are repeated


def same(one: Tensor, other: Tensor, dtype: str) -> bool:
    """Whether two tensors differ by rounding at most. dtype: float type of the model."""
    limit = ROUNDING.get(dtype, ROUGH) * float(other.float().norm())
    return one.shape == other.shape and float((one - other).float().norm()) <= limit


def find_keeping(worker: Worker) -> str:
    """Run the first condition, then repeat some calls of each denoiser, the last one first.

    Returns the address of a denoiser whose output is another then, or an empty text.
    """
    settings, results, running = worker.setup.settings, dict[int, Any](), list[int]()

    def ends(*call: Any) -> None:
        with torch.no_grad():
            results[running.pop()] = copied(call[-1])  # of the innermost call: a denoiser may call another one

    with ExitStack() as stack:
        calls = stack.enter_context(recorded_calls(*worker.denoisers))
        for denoiser in worker.denoisers:
            stack.callback(denoiser.register_forward_pre_hook(lambda *_: running.append(len(calls) - 1)).remove)
            stack.callback(denoiser.register_forward_hook(ends).remove)
        run_subject(worker.subject, worker.conditions[:1], settings.generation.seed)
    chosen = evenly_spaced([call.module for call in calls], CALLS)[::-1]  # in order, a cache may fill as before
    again = [calls[index] for index in chosen]
    before, after = denoised_of(again, [results[index] for index in chosen]), denoised_of(again, call_again(again))
    addresses = dict(zip(worker.denoisers, worker.setup.denoisers, strict=True))
    pairs = zip(again, before, after, strict=True)
    different = (call.module for call, one, other in pairs if not same(other, one, settings.dtype))
    return next((addresses[module] for module in different if module is not None), "")
