"""One measuring run of a pipeline: the denoiser on cached inputs along the full-precision trajectory, then images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from planner.pipelines import Call, Generation, first_tensor, generate, recorded_calls
from sensitivity.outcome import Outcome


@dataclass(frozen=True, eq=False)
class Rig:
    """A pipeline set up for measuring: `run` repeats the same work, `call` the
    denoiser once, `reference` is what full precision gave."""

    run: Callable[[], Outcome]
    call: Callable[[], object]
    reference: Outcome


def build_rig(pipe: Any, denoiser: nn.Module, prompts: Sequence[str], generation: Generation, timesteps: int) -> Rig:
    """Record the denoiser's inputs in full precision and keep `timesteps` of them, evenly spaced, to be replayed."""
    with recorded_calls(denoiser) as calls:
        images = generate(pipe, prompts, generation, batch=len(prompts))
    places = torch.linspace(0, len(calls) - 1, min(timesteps, len(calls))).round().long().tolist()
    kept = [calls[place] for place in dict.fromkeys(places)]

    def run() -> Outcome:
        denoised, groups, owners = replay(denoiser, kept, len(prompts))
        return Outcome(denoised, generate(pipe, prompts, generation, batch=len(prompts)), groups, owners)

    denoised, groups, owners = replay(denoiser, kept, len(prompts))
    return Rig(run, lambda: replay(denoiser, kept[:1], len(prompts)), Outcome(denoised, images, groups, owners))


@torch.no_grad()
def replay(
    denoiser: nn.Module, calls: Sequence[Call], prompts: int
) -> tuple[torch.Tensor, tuple[int, ...], tuple[int, ...]]:
    """The denoiser's outputs on recorded inputs (samples first), and the call and the prompt that each belongs to.

    Guidance puts prompts behind each other in a batch, `prompts` of each kind.
    """
    outputs = [first_tensor(denoiser(*call.args, **call.kwargs)) for call in calls]
    groups = tuple(i for i, output in enumerate(outputs) for _ in range(len(output)))
    owners = tuple(row % prompts for output in outputs for row in range(len(output)))
    return torch.cat(outputs), groups, owners
