"""A measuring run that resumes where the changed layer first acts, with the answers of the whole run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from bitplan.planner.measurement.replay import Replay, denoised_of, outcome_of, replay
from bitplan.sensitivity.runs.outcome import Outcome
from bitplan.sensitivity.runs.prefix import LIMIT, Prefix, record, resumed

TOLERANCE = (
    1e-5  # of the reference's length: what full precision may differ when resumed, for rounding on other devices
)


@dataclass(frozen=True, eq=False)
class RecordedReplay:
    """A rig with what it computes in full precision. calls: one for each replayed call of the denoiser; painting: of
    the images."""

    rig: Replay
    calls: tuple[Prefix, ...]
    painting: Prefix


def recorded(parts: Iterable[nn.Module], rig: Replay, limit: int = LIMIT) -> RecordedReplay:
    """Record the rig's run, in the time of one measurement.

    parts: all modules that take part; limit: bytes of outputs to hold over all replayed calls; beyond it more is
    computed again. Of the outputs' run only those of outermost modules are held: such as the text encoder's and the
    denoiser's, which are small.
    """
    share = limit // max(len(rig.calls), 1)
    with torch.no_grad():
        calls = tuple(record([call.module], partial(replay, [call]), share) for call in rig.calls if call.module)
        return RecordedReplay(rig, calls, record(parts, rig.paint, limit, deepest=0))


def run_from(recorded: RecordedReplay, layer: nn.Module, images: bool = True) -> Outcome:
    """What `rig.run` gives with `layer` changed and all else as it was recorded. images: False leaves outputs out.

    The first denoiser call of a run is the first that is replayed, so it is not computed again either.
    """
    rig = recorded.rig
    returned = [_call(recorded, place, layer) for place in range(len(rig.calls))]
    outputs = _paint(recorded, layer, returned) if images else None
    return outcome_of(denoised_of(rig.calls, returned), rig.samples, outputs, rig.reference.kind)


def proven(recorded: RecordedReplay, layers: Iterable[nn.Module]) -> frozenset[nn.Module]:
    """Of `layers`, those at which a run that resumes without a change gives the reference again: one replayed call
    of each, and the images of the first. A module that keeps a state between calls cannot be skipped, and there is no
    telling one by looking."""
    reference, found = recorded.rig.reference, []
    for layer in layers:
        try:
            first = [_call(recorded, place, layer) for place in range(len(recorded.calls))[:1]]
            same = all(map(_same, denoised_of(recorded.rig.calls[:1], first), reference.denoised or ()))
            if same and not found:
                same = _same(_paint(recorded, layer, first), reference.outputs)
        except Exception:  # whatever a module that misses its state throws: the whole run will do
            same = False
        found += [layer] * same
    return frozenset(found)


@torch.no_grad()
def _call(recorded: RecordedReplay, place: int, layer: nn.Module) -> Any:
    call = recorded.rig.calls[place]
    with resumed(recorded.calls[place], layer):
        return replay([call])[0]


def _paint(recorded: RecordedReplay, layer: nn.Module, returned: Sequence[object]) -> torch.Tensor:
    known = [(call.module, first) for call, first in zip(recorded.rig.calls, returned, strict=False) if call.module]
    with resumed(recorded.painting, layer, known=known[0] if known else None):
        return recorded.rig.paint()


def _same(again: torch.Tensor, reference: torch.Tensor | None) -> bool:
    assert reference is not None
    return bool((again - reference).float().norm() <= TOLERANCE * reference.float().norm())
