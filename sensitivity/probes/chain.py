"""An unrolled run, and the random weightings of its readings with their gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from bitplan.sensitivity.metrics import Metric
from bitplan.sensitivity.metrics.calls import probe_of
from bitplan.sensitivity.metrics.learned import Encoder
from bitplan.sensitivity.probes.gradients import gradients_of
from bitplan.sensitivity.probes.owners import Owners, owners_of
from bitplan.sensitivity.probes.unroll import Step, outputs_of
from bitplan.sensitivity.runs.outcome import Outcome, read


@dataclass(frozen=True, eq=False)
class Chain:
    """An unrolled full-precision run.

    A step without a weight is not differentiated: gradients pass it through the scheduler alone.

    Attributes:
        steps: the calls of the modules, in order.
        result: (P, ...) one a sample; its graph ends in the outputs of the steps.
        readout: indices of the steps whose own output is a reading.
        weights: index of each differentiated step -> the number of steps that it represents.
        batched: of each step, which of its tensors hold the batch (`batches.batched`).
        alone: whether there is one sample and each call can have one copy of it alone.
        idle: the layers that the run called on no row, such as experts that other samples reach.
    """

    steps: Sequence[Step]
    result: Tensor
    readout: tuple[int, ...]
    weights: Mapping[int, float]
    batched: Sequence[tuple[bool, ...]]
    alone: bool = False
    idle: frozenset[str] = frozenset()

    @cached_property
    def owners(self) -> Sequence[Owners]:
        """The sample of each row of each step, or None if it is unknown."""
        return owners_of(self.steps, self.result, self.weights)


@dataclass(frozen=True, eq=False)
class Probes:
    """K weightings of one reading.

    Attributes:
        metric: the name of the metric.
        count: K.
        gradients: index of a step -> for each of its outputs (K, B, ...) gradients of the weighted reading.
        propagates: whether gradients flow on to earlier steps; False for the reading `denoised`, which is about single
            steps.
    """

    metric: str
    count: int
    gradients: Mapping[int, Sequence[Tensor]]
    propagates: bool


def draw(
    chain: Chain, metric: Metric, count: int, generator: torch.Generator, encoder: Encoder | None = None,
    texts: Tensor | None = None,
) -> Probes:  # fmt: skip
    """Draw `count` probes of a metric; a signed metric has one, its gradient."""
    if metric.reads == "denoised":
        gradients = {index: _on_output(chain.steps[index], metric, count, generator) for index in chain.readout}
        return Probes(metric.name, count, gradients, False)
    count = 1 if metric.signed else count
    with torch.enable_grad():
        reading = read(Outcome(outputs=chain.result), [metric.reads], encoder, texts)[metric.reads]
    weights = [probe_of(metric, reading.detach(), generator).to(reading.dtype) for _ in range(count)]
    leaves = outputs_of(chain.steps)
    by_leaf = [torch.stack(g) for g in zip(*(gradients_of(reading, leaves, v) for v in weights), strict=True)]
    return Probes(metric.name, count, by_step(chain.steps, by_leaf), True)


def _on_output(step: Step, metric: Metric, count: int, generator: torch.Generator) -> list[Tensor]:
    """Weightings of a step's first output, and zeros for its other outputs."""
    full = step.output.detach()
    first = torch.stack([probe_of(metric, full, generator) for _ in range(count)])
    return [first, *(other.new_zeros(count, *other.shape) for other in step.outputs[1:])]


def by_step(steps: Sequence[Step], tensors: Sequence[Tensor]) -> dict[int, list[Tensor]]:
    """Tensors in the order of `outputs_of`, by the index of the step."""
    remaining = iter(tensors)
    return {index: [next(remaining) for _ in step.outputs] for index, step in enumerate(steps)}
