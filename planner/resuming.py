"""A measuring run that resumes where the changed layer first acts, with the answers of the whole run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from planner.measure import Rig, outcome_of
from sensitivity.outcome import Outcome
from sensitivity.prefix import LIMIT, Prefix, record, resumed
from sensitivity.unroll import first_of

TOLERANCE = (
    1e-5  # of the reference's length: what full precision may differ when resumed, for rounding on other devices
)


@dataclass(frozen=True, eq=False)
class Recorded:
    """A rig with what it computes in full precision. calls: one for each replayed call of the denoiser; painting: of
    the images."""

    rig: Rig
    calls: tuple[Prefix, ...]
    painting: Prefix


def recorded(pipe: Any, rig: Rig, limit: int = LIMIT) -> Recorded:
    """Record the rig's run, in the time of one measurement.

    limit: bytes of outputs to hold over all replayed calls; beyond it more is computed again. Of the images' run only
    outputs of outermost modules are held: such as the text encoder's and the denoiser's, which are small.
    """
    share = limit // len(rig.calls)
    with torch.no_grad():
        calls = tuple(record([rig.denoiser], lambda c=c: rig.denoiser(*c.args, **c.kwargs), share) for c in rig.calls)
        parts = [part for part in pipe.components.values() if isinstance(part, nn.Module)]
        return Recorded(rig, calls, record(parts, rig.paint, limit, deepest=0))


def run_from(recorded: Recorded, layer: nn.Module, images: bool = True) -> Outcome:
    """What `rig.run` gives with `layer` changed and all else as it was recorded. images: False leaves them out.

    The first denoiser call of the images is the first that is replayed, so it is not computed again either.
    """
    rig = recorded.rig
    returned = [_call(recorded, place, layer) for place in range(len(rig.calls))]
    return outcome_of(returned, rig.prompts, _paint(recorded, layer, returned[0]) if images else None)


def proven(recorded: Recorded, layers: Iterable[nn.Module]) -> frozenset[nn.Module]:
    """Of `layers`, those at which a run that resumes without a change gives the reference again: one replayed call
    of each, and the images of the first. A module that keeps a state between calls cannot be skipped, and there is no
    telling one by looking."""
    reference, found = recorded.rig.reference, []
    for layer in layers:
        try:
            first = _call(recorded, 0, layer)
            same = _same(first_of(first), reference.denoised)
            if same and not found:
                same = _same(_paint(recorded, layer, first), reference.images)
        except Exception:  # whatever a module that misses its state throws: the whole run will do
            same = False
        found += [layer] * same
    return frozenset(found)


@torch.no_grad()
def _call(recorded: Recorded, place: int, layer: nn.Module) -> Any:
    call = recorded.rig.calls[place]
    with resumed(recorded.calls[place], layer):
        return recorded.rig.denoiser(*call.args, **call.kwargs)


def _paint(recorded: Recorded, layer: nn.Module, first: object) -> torch.Tensor:
    with resumed(recorded.painting, layer, known=(recorded.rig.denoiser, first)):
        return recorded.rig.paint()


def _same(again: torch.Tensor, reference: torch.Tensor | None) -> bool:
    assert reference is not None
    reference = reference[: len(again)]
    return bool((again - reference).float().norm() <= TOLERANCE * reference.float().norm())
