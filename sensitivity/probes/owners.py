"""Finds to which sample each row of a call belongs, by a trial in which samples differ in loudness (`loudness`).

A sampler may repeat its samples for guidance or fold the frames of a video into the batch of its denoiser, one behind
the other or next to each other. The weighted result of the run is differentiated several times, with the weights of
each sample times a power of two of its own. The gradient at a row of a call grows by the power of the sample that the
row acts on.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bitplan.sensitivity.probes import loudness
from bitplan.sensitivity.probes.gradients import gradients_of
from bitplan.sensitivity.probes.unroll import Step, outputs_of, pull
from bitplan.sensitivity.runs.nested import Leaf, SampleList, leaves_of

BASE = 8  # powers of two that samples are told apart by in one pass; the number of a sample has several such digits
UNEVEN = 1.5  # no power of two: the weight of rows of which no sample is known
Owners = tuple[int, ...] | None  # the sample of each row of a call; None if it is unknown


@dataclass(frozen=True, eq=False)
class Pass:
    """One backward pass through all that a run computes between its calls.

    Attributes:
        factors: the factor of each sample.
        gradients: on each output of each step, from the result and from later steps.
    """

    factors: Tensor
    gradients: list[Tensor]

    def add(self, gradients: Sequence[Tensor]) -> None:
        """Add the gradients on the outputs of the first steps."""
        for whole, more in zip(self.gradients, gradients, strict=False):
            whole += more


def owners_of(steps: Sequence[Step], result: Tensor, differentiated: Collection[int]) -> list[Owners]:
    """The sample of each row of each differentiated step; None for the others.

    Args:
        steps: the calls of the modules, in order.
        result: (P, ...) one a sample; its graph ends in the outputs of the steps.
        differentiated: indices of the steps that gradients pass through, not the scheduler alone.
    """
    samples = len(result)
    if samples == 1:
        return [(0,) * step.rows for step in steps]
    passes = [_begun(steps, result, factors) for factors in _factors(samples)]
    found: list[Owners] = [None] * len(steps)
    at = len(passes[0].gradients)
    for index in reversed(range(len(steps))):
        step = steps[index]
        at -= len(step.outputs)
        if index not in differentiated:
            continue
        numbers = _numbers(passes, slice(at, at + len(step.outputs)))
        found[index] = _resolved(numbers, samples)
        if step.inputs:
            for one in passes:
                one.add(pull(steps, index, _cotangents(step, numbers, one.factors)))
    return found


def _factors(samples: int) -> list[Tensor]:
    """Of each pass the factor of each sample: 1 in the first, and by a digit of its number in the others."""
    numbers = torch.arange(samples, dtype=torch.int64, device="cpu")
    every = [torch.ones(samples, dtype=torch.float32, device="cpu")]
    size = 1
    while size < samples:
        every.append((numbers // size % BASE - BASE // 2).float().exp2())
        size *= BASE
    return every


def _begun(steps: Sequence[Step], result: Tensor, factors: Tensor) -> Pass:
    return Pass(factors, gradients_of(result, outputs_of(steps), loudness.weights(result, factors, 2)))


def _numbers(passes: Sequence[Pass], own: slice) -> Tensor:
    """The sample of each row of a step: nan for a row that acts on none, inf for one that acts on several."""
    plain, *others = (torch.cat([loudness.projected(x) for x in one.gradients[own]], 1) for one in passes)
    digits = [loudness.powers(plain, other) + BASE // 2 for other in others]
    return torch.stack([digit * BASE**place for place, digit in enumerate(digits)]).sum(0)


def _resolved(numbers: Tensor, samples: int) -> Owners:
    """The sample of each row. Those that act on none follow the others, if these are in order: each sample repeated,
    and these several times, as often as possible."""
    acts = ~numbers.isnan()
    if not bool((numbers[acts] < samples).all()):
        return None
    each, rest = divmod(len(numbers), samples)
    if bool(acts.all()):
        return tuple(map(int, numbers))
    for inner in (number for number in range(1, each + 1) if not rest and each % number == 0):
        expected = torch.arange(samples, dtype=torch.int64, device="cpu").repeat_interleave(inner).repeat(each // inner)
        if torch.equal(numbers[acts], expected[acts].double()):
            return tuple(map(int, expected))
    return None


def _cotangents(step: Step, numbers: Tensor, factors: Tensor) -> list[Tensor]:
    """Weights of the inputs of a step, in which each row is as loud as the sample that it acts on."""
    known = numbers.nan_to_num(0, 0).long().clamp_max(len(factors) - 1)
    by_row = torch.where(numbers.isnan(), 0.0, torch.where(numbers < len(factors), factors[known], UNEVEN))
    leaves = [leaf for leaf in leaves_of((step.args, step.kwargs)) if leaf.requires_grad]
    return [
        loudness.weights(tensor, _spread(leaf, by_row), 3 + place)
        for place, (leaf, tensor) in enumerate(zip(leaves, step.inputs, strict=True))
    ]


def _spread(leaf: Leaf, by_row: Tensor) -> Tensor:
    """What is known of each row of a call, for each row of one of its arguments, which may have several for each."""
    if isinstance(leaf, SampleList) and leaf.ragged:
        return by_row.repeat_interleave(
            torch.tensor([shape.numel() for shape in leaf.shapes], dtype=torch.int64, device="cpu")
        )
    return by_row.repeat_interleave(len(leaf.tensor if isinstance(leaf, SampleList) else leaf) // len(by_row))
