"""Finds denoisers whose calls depend on earlier ones: a measurement repeats single calls."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from bitplan.planner.errors import UserError
from bitplan.planner.measurement.replay import call_again, denoised_of, evenly_spaced
from bitplan.planner.pipelines.additions import eagerly
from bitplan.planner.pipelines.subject import Subject, run_subject
from bitplan.planner.pipelines.traced import Traced
from bitplan.plans.dtypes import FLOAT32
from bitplan.plans.layers.addresses import module_at
from bitplan.sensitivity.runs.calls import recorded_calls
from bitplan.sensitivity.runs.nested import copied

ROUNDING = {FLOAT32: 1e-3}  # difference of two equal runs, relative to the output, that is rounding
ROUGH = 0.05  # the same in 16 bits
CALLS = 4  # of each denoiser that are repeated


def same(one: Tensor, other: Tensor, dtype: str) -> bool:
    """Whether two tensors differ by rounding at most. dtype: float type of the model."""
    limit = ROUNDING.get(dtype, ROUGH) * float(other.float().norm())
    return one.shape == other.shape and float((one - other).float().norm()) <= limit


def find_keeping(subject: Subject, addresses: Sequence[str], condition: Any, seed: int, dtype: str = FLOAT32) -> str:
    """Run one condition, then repeat some calls of each denoiser, the last one first.

    addresses: of the denoisers. Returns that of one whose output is another then, or an empty text.
    """
    denoisers = {module_at(subject.modules, address): address for address in addresses}
    results, running = dict[int, Any](), list[int]()

    def ends(*call: Any) -> None:
        with torch.no_grad():
            results[running.pop()] = copied(call[-1])  # of the innermost call: a denoiser may call another one

    with ExitStack() as stack:
        calls = stack.enter_context(recorded_calls(*denoisers))
        for denoiser in denoisers:
            stack.callback(denoiser.register_forward_pre_hook(lambda *_: running.append(len(calls) - 1)).remove)
            stack.callback(denoiser.register_forward_hook(ends).remove)
        run_subject(subject, [condition], seed)
    chosen = evenly_spaced([call.module for call in calls], CALLS)[::-1]  # in order, a cache may fill as before
    again = [calls[index] for index in chosen]
    before, after = denoised_of(again, [results[index] for index in chosen]), denoised_of(again, call_again(again))
    pairs = zip(again, before, after, strict=True)
    different = (call.module for call, one, other in pairs if not same(other, one, dtype))
    return next((denoisers[module] for module in different if module is not None), "")


def keeping_error(address: str) -> UserError:
    """The refusal of such a denoiser."""
    return UserError(f"{address} gives another output when a call of it is repeated: it keeps something from call to "
                     "call, such as a step cache, or the pipeline changes it while it runs, as PAG does; turn that off "
                     "first")  # fmt: skip


def check_repeats(traced: Traced, condition: Any, seed: int) -> None:
    """Raises UserError for a denoiser whose calls depend on earlier ones."""
    with eagerly():
        keeping = find_keeping(traced.subject, traced.denoisers, condition, seed)
    if keeping:
        raise keeping_error(keeping)
