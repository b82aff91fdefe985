"""Replay of a subject: its denoisers on recorded inputs of the full-precision trajectory, then the outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

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
        samples: P, the number of conditions.
        owners: the sample of each call, where each condition has its own; else empty.
    """

    run: Callable[[], Outcome]
    call: Callable[[], object]
    reference: Outcome
    calls: tuple[RecordedCall, ...]
    generate: Callable[[], torch.Tensor]
    samples: int
    owners: tuple[int, ...] = ()


def build_replay(
    subject: Subject, denoisers: Sequence[nn.Module], conditions: Sequence[Any], seed: int, timesteps: int
) -> Replay:
    """Record the inputs of the denoisers in full precision and select `timesteps` calls of each, evenly spaced."""
    record = partial(_recorded, subject, tuple(denoisers), conditions, (seed, timesteps))
    outputs, calls, owners = settled(subject.run, record)
    kind, count = output_of(subject, outputs), len(outputs)
    denoised = denoised_of(calls, call_again(calls))
    if not owners and any(len(rows) % count for rows in denoised):  # the run calls its denoiser for a sample alone
        outputs, calls, owners = _recorded(subject, tuple(denoisers), conditions, (seed, timesteps), True)
        denoised = denoised_of(calls, call_again(calls))
    generate = partial(run_subject, subject, conditions, seed)

    def run() -> Outcome:
        return outcome_of(denoised_of(calls, call_again(calls)), count, generate(), kind, owners)

    reference = outcome_of(denoised, count, outputs, kind, owners)
    return Replay(run, lambda: call_again(calls[:1]), reference, calls, generate, count, owners)


def _recorded(
    subject: Subject, denoisers: Sequence[nn.Module], conditions: Sequence[Any], numbers: tuple[int, int],
    divided: bool = False,
) -> tuple[torch.Tensor, tuple[RecordedCall, ...], tuple[int, ...]]:  # fmt: skip
    """The outputs, the selected calls, and the `owners` of `Replay`.

    Args:
        subject, denoisers, conditions: what runs, and what of it is recorded.
        numbers: the seed, and the calls to select.
        divided: whether to run each condition alone, even if the subject takes several.
    """
    seed, timesteps = numbers
    divided = divided or has_own_calls(subject.run)
    outputs: list[torch.Tensor] = []
    calls: list[RecordedCall] = []
    owners: list[int] = []
    for place, part in enumerate([[one] for one in conditions] if divided else [list(conditions)]):
        with recorded_calls(*denoisers) as recorded:
            outputs.append(run_subject(subject, part, seed + place))
        chosen = evenly_spaced([call.module for call in recorded], timesteps)
        calls += [recorded[index] for index in chosen]
        owners += [place] * len(chosen) if divided else []
    return torch.cat(outputs), tuple(calls), tuple(owners)


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


def _called(module: nn.Module, call: RecordedCall) -> Any:
    args, kwargs = copied((call.args, call.kwargs))
    with drawing_from(call.random):
        return module(*args, **kwargs)


def denoised_of(calls: Sequence[RecordedCall], results: Sequence[Any]) -> tuple[torch.Tensor, ...]:
    """The main tensor, (B, ...), in the result of each call of a denoiser."""
    pairs = zip(calls, results, strict=True)
    return tuple(first_of(gathered((call.args, call.kwargs), result)) for call, result in pairs)


def outcome_of(
    denoised: tuple[torch.Tensor, ...],
    samples: int,
    outputs: torch.Tensor | None,
    kind: str,
    own: Sequence[int] = (),
) -> Outcome:
    """The outcome of replayed calls, with the call and the sample of each row.

    Guidance stacks several copies of the `samples` samples in one batch. own: the sample of each call, where a call is
    of one alone.
    """
    groups = tuple(i for i, output in enumerate(denoised) for _ in range(len(output)))
    if own:
        owners = tuple(own[group] for group in groups)
    else:
        owners = tuple(row % samples for output in denoised for row in range(len(output)))
    return Outcome(denoised, outputs, groups, owners, kind)
