"""One measuring run of a pipeline: the denoiser on cached inputs along the full-precision trajectory, then images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from planner.pipelines import Call, Generation, generate, recorded_calls
from sensitivity.outcome import Outcome
from sensitivity.unroll import first_of


@dataclass(frozen=True, eq=False)
class Rig:
    """A pipeline set up for measuring: `run` repeats the same work, `call` the denoiser once, `reference` is what full
    precision gave. calls: of the denoiser, to be replayed, the first of a generation first; paint: makes the images."""

    run: Callable[[], Outcome]
    call: Callable[[], object]
    reference: Outcome
    denoiser: nn.Module
    calls: tuple[Call, ...]
    paint: Callable[[], torch.Tensor]
    prompts: int


def build_rig(pipe: Any, denoiser: nn.Module, prompts: Sequence[str], generation: Generation, timesteps: int) -> Rig:
    """Record the denoiser's inputs in full precision and keep `timesteps` of them, evenly spaced, to be replayed."""
    with recorded_calls(denoiser) as calls:
        images = generate(pipe, prompts, generation, batch=len(prompts))
    kept, count = tuple(calls[place] for place in kept_places(len(calls), timesteps)), len(prompts)

    def paint() -> torch.Tensor:
        return generate(pipe, prompts, generation, batch=count)

    def run() -> Outcome:
        return outcome_of(replay(denoiser, kept), count, paint())

    reference = outcome_of(replay(denoiser, kept), count, images)
    return Rig(run, lambda: replay(denoiser, kept[:1]), reference, denoiser, kept, paint, count)


def kept_places(calls: int, timesteps: int) -> tuple[int, ...]:
    """Which of the denoiser's calls are judged by their own output: so many, evenly spaced, the first among them."""
    places = torch.linspace(0, calls - 1, min(timesteps, calls)).round().long().tolist()
    return tuple(dict.fromkeys(places))


@torch.no_grad()
def replay(denoiser: nn.Module, calls: Sequence[Call]) -> list[Any]:
    """What the denoiser returns on recorded inputs."""
    return [denoiser(*call.args, **call.kwargs) for call in calls]


def outcome_of(returned: Sequence[Any], prompts: int, images: torch.Tensor | None) -> Outcome:
    """The outcome of replayed calls, samples first, with the call and the prompt that each belongs to.

    Guidance puts prompts behind each other in a batch, `prompts` of each kind.
    """
    outputs = [first_of(one) for one in returned]
    groups = tuple(i for i, output in enumerate(outputs) for _ in range(len(output)))
    owners = tuple(row % prompts for output in outputs for row in range(len(output)))
    return Outcome(torch.cat(outputs), images, groups, owners)
