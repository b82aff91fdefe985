"""Resume a replay at the first call of the changed layer. The outcome equals that of the whole replay."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from bitplan.planner.measurement.replay import Replay, call_again, denoised_of, outcome_of
from bitplan.sensitivity.runs.outcome import Outcome
from bitplan.sensitivity.runs.prefix import LIMIT, Prefix, record, resumed

TOLERANCE = 1e-5  # relative difference of a resumed run in full precision that is rounding on other devices


@dataclass(frozen=True, eq=False)
class RecordedReplay:
    """A replay with recordings of its runs in full precision.

    Attributes:
        replay: the replay.
        calls: one recording for each replayed call of a denoiser.
        generation: the recording of the run that makes the outputs.
    """

    replay: Replay
    calls: tuple[Prefix, ...]
    generation: Prefix


def record_replay(modules: Iterable[nn.Module], replay: Replay, limit: int = LIMIT) -> RecordedReplay:
    """Record the runs of a replay, which takes the time of one measurement.

    Of the run that makes the outputs, only the results of outermost modules are stored, such as those of the text
    encoder and the denoiser, which are small.

    Args:
        modules: all modules that take part.
        replay: the replay to record.
        limit: bytes of stored results for all replayed calls; results beyond it are computed again.
    """
    share = limit // max(len(replay.calls), 1)
    with torch.no_grad():
        calls = tuple(record([call.module], partial(call_again, [call]), share) for call in replay.calls if call.module)
        return RecordedReplay(replay, calls, record(modules, replay.generate, limit, deepest=0))


def run_from(recorded: RecordedReplay, layer: nn.Module, images: bool = True) -> Outcome:
    """The outcome of `replay.run` while `layer` alone differs from the recording. images: whether to make outputs.

    The first denoiser call of the pipeline's run is the first replayed call, so it is not computed twice.
    """
    replay = recorded.replay
    results = [_call(recorded, index, layer) for index in range(len(replay.calls))]
    outputs = _generate(recorded, layer, results) if images else None
    denoised, kind = denoised_of(replay.calls, results), replay.reference.kind
    return outcome_of(denoised, outputs, kind, replay.places)


def resumable(recorded: RecordedReplay, layers: Iterable[nn.Module]) -> frozenset[nn.Module]:
    """The layers at which an unchanged run can be resumed and reproduces the reference.

    One replayed call of each layer is compared, and the outputs once for each set of calls that is looked up, which are
    those of the components before the layer's. A module that keeps a state between calls must not be skipped, nor may
    the output of one that is written to where torch does not see it, and only a trial shows whether there is one.
    """
    reference, passed, tried = recorded.replay.reference, [], dict[int, bool]()
    for layer in layers:
        try:
            first = [_call(recorded, index, layer) for index in range(len(recorded.calls))[:1]]
            same = all(map(_same, denoised_of(recorded.replay.calls[:1], first), reference.denoised or ()))
            looked_up = recorded.generation.ended_before(layer)
            if same and looked_up not in tried:
                tried[looked_up] = _same(_generate(recorded, layer, first), reference.outputs)
            same = same and tried[looked_up]
        except Exception:  # a module that lacks its state may raise anything; the whole run is used instead
            same = False
        passed += [layer] * same
    return frozenset(passed)


@torch.no_grad()
def _call(recorded: RecordedReplay, index: int, layer: nn.Module) -> Any:
    call = recorded.replay.calls[index]
    with resumed(recorded.calls[index], layer):
        return call_again([call])[0]


def _generate(recorded: RecordedReplay, layer: nn.Module, results: Sequence[object]) -> torch.Tensor:
    calls = zip(recorded.replay.calls, results, strict=False)
    known = [(call.module, result) for call, result in calls if call.module]
    with resumed(recorded.generation, layer, known=known[0] if known else None):
        return recorded.replay.generate()


def _same(output: torch.Tensor, reference: torch.Tensor | None) -> bool:
    assert reference is not None
    return bool((output - reference).float().norm() <= TOLERANCE * reference.float().norm())
