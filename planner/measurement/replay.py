"""Replay of a subject: its denoisers on recorded inputs of the full-precision trajectory, then the outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from bitplan.planner.measurement.row_order import Part, Place, places_of
from bitplan.planner.pipelines.calling import has_own_calls, settled
from bitplan.planner.pipelines.subject import Subject, output_of, run_subject
from bitplan.sensitivity.runs.calls import RecordedCall, recorded_calls
from bitplan.sensitivity.runs.generators import drawing_from
from bitplan.sensitivity.runs.nested import copied, first_of, gathered
from bitplan.sensitivity.runs.outcome import Outcome


@dataclass(frozen=True, eq=False)
class Replay:
    """A subject that is ready to be measured.

    Attributes:
        run: repeats the replay and returns its outcome.
        call: makes the first recorded call of a denoiser.
        reference: the outcome in full precision.
        calls: the recorded calls of the denoisers that `run` repeats, in order.
        generate: returns the outputs of the whole pipeline, (P, ...).
        places: of each call, its number among those of its run, and the sample of each of its rows.
        together: the number of conditions of the first run, which `call` is for.
    """

    run: Callable[[], Outcome]
    call: Callable[[], object]
    reference: Outcome
    calls: tuple[RecordedCall, ...]
    generate: Callable[[], torch.Tensor]
    places: tuple[Place, ...]
    together: int


def build_replay(
    subject: Subject, denoisers: Sequence[nn.Module], conditions: Sequence[Any], seed: int, timesteps: int,
    batch: int | None = None,
) -> Replay:  # fmt: skip
    """Record the inputs of the denoisers in full precision and select `timesteps` calls of each, evenly spaced.

    batch: conditions in one run, always the same ones, so that its rounding is in no difference; None for all.
    """
    size = 1 if has_own_calls(subject.run) else min(batch or len(conditions), len(conditions))
    record = partial(_recorded, subject, tuple(denoisers), (seed, timesteps))
    outputs, calls, parts = settled(subject.run, lambda: record(conditions, size))
    denoised = _denoised_again(calls)
    if any(len(rows) % len(own) for rows, (_, own) in zip(denoised, parts, strict=True)):
        size = 1  # the run calls its denoiser for a sample alone
        outputs, calls, parts = record(conditions, size)
        denoised = _denoised_again(calls)
    places = places_of(denoised, parts, lambda: _denoised_again(record(conditions[:1], 1)[1]))
    kind, generate = output_of(subject, outputs), partial(run_subject, subject, conditions, seed, size)

    def run() -> Outcome:
        return outcome_of(_denoised_again(calls), generate(), kind, places)

    reference = outcome_of(denoised, outputs, kind, places)
    return Replay(run, lambda: call_again(calls[:1]), reference, calls, generate, places, size)


def _recorded(
    subject: Subject, denoisers: Sequence[nn.Module], numbers: tuple[int, int], conditions: Sequence[Any], size: int
) -> tuple[torch.Tensor, tuple[RecordedCall, ...], tuple[Part, ...]]:
    """The outputs, the selected calls, and the part of each.

    Args:
        subject, denoisers: what runs, and what of it is recorded.
        numbers: the seed, and the calls to select.
        conditions: what it runs on.
        size: the number of conditions of a run.
    """
    seed, timesteps = numbers
    outputs: list[torch.Tensor] = []
    calls: list[RecordedCall] = []
    parts: list[Part] = []
    for start in range(0, len(conditions), size):
        part = conditions[start : start + size]
        with recorded_calls(*denoisers) as recorded:
            outputs.append(run_subject(subject, part, seed + start))
        chosen = evenly_spaced([call.module for call in recorded], timesteps)
        calls += [recorded[index] for index in chosen]
        parts += [(number, range(start, start + len(part))) for number in range(len(chosen))]
    return torch.cat(outputs), tuple(calls), tuple(parts)


def evenly_spaced(modules: Sequence[object], count: int) -> tuple[int, ...]:
    """Indices of `count` calls of each module, evenly spaced, its first call included; all if there are fewer.

    modules: the module of each call.
    """
    indices: list[int] = []
    for module in dict.fromkeys(modules):
        own = [index for index, other in enumerate(modules) if other is module]
        chosen = torch.linspace(0, len(own) - 1, min(count, len(own)), dtype=torch.float32, device="cpu")
        indices += [own[i] for i in dict.fromkeys(chosen.round().long().tolist())]
    return tuple(sorted(indices))


@torch.no_grad()
def call_again(calls: Sequence[RecordedCall]) -> list[Any]:
    """Repeat recorded calls and return their results. Each gets copies, since a module may write into its arguments,
    and draws the random numbers of the recorded call."""
    return [_called(call.module, call) for call in calls if call.module is not None]


def _denoised_again(calls: Sequence[RecordedCall]) -> tuple[torch.Tensor, ...]:
    return denoised_of(calls, call_again(calls))


def _called(module: nn.Module, call: RecordedCall) -> Any:
    args, kwargs = copied((call.args, call.kwargs))
    with drawing_from(call.random):
        return module(*args, **kwargs)


def denoised_of(calls: Sequence[RecordedCall], results: Sequence[Any]) -> tuple[torch.Tensor, ...]:
    """The main tensor, (B, ...), in the result of each call of a denoiser."""
    pairs = zip(calls, results, strict=True)
    return tuple(first_of(gathered((call.args, call.kwargs), result)) for call, result in pairs)


def outcome_of(
    denoised: tuple[torch.Tensor, ...], outputs: torch.Tensor | None, kind: str, places: Sequence[Place]
) -> Outcome:
    """The outcome of replayed calls, with the call and the sample of each row. places: as in `Replay`."""
    rows = [(number, owner) for number, owners in places for owner in owners]
    groups, owners = (tuple(row[side] for row in rows) for side in (0, 1))
    return Outcome(denoised, outputs, groups, owners, kind)
