"""One measuring run of a subject: the denoisers on cached inputs along the full-precision trajectory, then outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from bitplan.planner.pipelines.subject import Subject, output_of, run_subject
from bitplan.sensitivity.runs.calls import RecordedCall, recorded_calls
from bitplan.sensitivity.runs.nested import first_of, gathered
from bitplan.sensitivity.runs.outcome import Outcome


@dataclass(frozen=True, eq=False)
class Replay:
    """A subject set up for measuring: `run` repeats the same work, `call` one denoiser once, `reference` is what full
    precision gave. calls: of the denoisers, to be replayed, in their order; paint: makes the outputs; samples: how
    many conditions there are."""

    run: Callable[[], Outcome]
    call: Callable[[], object]
    reference: Outcome
    calls: tuple[RecordedCall, ...]
    paint: Callable[[], torch.Tensor]
    samples: int


def build_rig(
    subject: Subject, denoisers: Iterable[nn.Module], conditions: Sequence[Any], seed: int, timesteps: int
) -> Replay:
    """Record the denoisers' inputs in full precision and keep `timesteps` of each, evenly spaced, to be replayed."""
    with recorded_calls(*denoisers) as calls:
        outputs = run_subject(subject, conditions, seed)
    kind = output_of(subject, outputs)
    kept, count = tuple(calls[place] for place in kept_places([call.module for call in calls], timesteps)), len(outputs)
    paint = partial(run_subject, subject, conditions, seed)

    def run() -> Outcome:
        return outcome_of(denoised_of(kept, replay(kept)), count, paint(), kind)

    reference = outcome_of(denoised_of(kept, replay(kept)), count, outputs, kind)
    return Replay(run, lambda: replay(kept[:1]), reference, kept, paint, count)


def kept_places(modules: Sequence[object], timesteps: int) -> tuple[int, ...]:
    """Which of the calls are judged by their own output: of each module so many, evenly spaced, the first among them.

    modules: what each call is of.
    """
    found: list[int] = []
    for module in dict.fromkeys(modules):
        places = [place for place, its in enumerate(modules) if its is module]
        chosen = torch.linspace(0, len(places) - 1, min(timesteps, len(places))).round().long().tolist()
        found += [places[i] for i in dict.fromkeys(chosen)]
    return tuple(sorted(found))


@torch.no_grad()
def replay(calls: Sequence[RecordedCall]) -> list[Any]:
    """What is returned on recorded inputs."""
    return [call.module(*call.args, **call.kwargs) for call in calls if call.module is not None]


def denoised_of(calls: Sequence[RecordedCall], returned: Sequence[Any]) -> tuple[torch.Tensor, ...]:
    """What calls of denoisers are about, (B, ...) each. returned: by the calls, all that they gave."""
    pairs = zip(calls, returned, strict=True)
    return tuple(first_of(gathered((call.args, call.kwargs), output)) for call, output in pairs)


def outcome_of(denoised: tuple[torch.Tensor, ...], samples: int, outputs: torch.Tensor | None, kind: str) -> Outcome:
    """The outcome of replayed calls, with the call and the sample that each row belongs to.

    Guidance puts samples behind each other in a batch, `samples` of each kind.
    """
    groups = tuple(i for i, output in enumerate(denoised) for _ in range(len(output)))
    owners = tuple(row % samples for output in denoised for row in range(len(output)))
    return Outcome(denoised, outputs, groups, owners, kind)
