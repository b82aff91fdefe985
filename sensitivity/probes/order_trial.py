"""Finds in which order the rows of a layer hold the samples of a call, by a trial in which samples differ in loudness.

A denoiser may repeat its batch for guidance, or fold the frames of a video into it, so that a layer gets several rows
of each sample in an order of its own. The gradient of the call's output is computed twice at each layer, once with the
weights of each sample times a power of two of its own. Backward passes are linear: the gradient at a row that acts on
one sample alone grows by the power of that sample, and tells its place in the batch. No layer needs to see the sample,
as one that reads a time does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from bitplan.sensitivity.probes import loudness
from bitplan.sensitivity.probes.gradients import differentiating
from bitplan.sensitivity.probes.rows import Orders, Rows
from bitplan.sensitivity.probes.shares import hooked
from bitplan.sensitivity.probes.unroll import Step
from bitplan.sensitivity.runs.nested import repeated, tensors_of

POWERS = 32  # powers of two that samples are told apart by


def orders_of(step: Step, batched: Sequence[bool], layers: Mapping[str, nn.Module], copies: int) -> Orders:
    """The order of the rows of each layer that acts on the outputs of a call.

    Args:
        step: the call.
        batched: which argument tensors have a batch, from `batches.batched`.
        layers: address -> layer.
        copies: the number of copies of the batch to try.
    """
    samples = copies * step.rows
    if not layers or samples == 1:
        return {}
    powers = torch.arange(samples, dtype=torch.int64, device="cpu") % POWERS - POWERS // 2
    plain, louder = (_gradients(step, batched, layers, copies, weights) for weights in (0 * powers, powers))
    orders: dict[Rows, int | None] = {}
    for (layer, one), (_, other) in zip(plain, louder, strict=True):
        each, rest = divmod(len(one), samples)
        if rest or not each:
            continue
        outer = _outer(loudness.powers(one, other), powers, each)
        orders[layer, each] = outer if orders.get((layer, each), outer) == outer else None
    return orders


def _outer(found: Tensor, powers: Tensor, each: int) -> int | None:
    """The smallest number of repetitions of the batch that explains the powers found in the rows, nan for any."""
    acts = ~found.isnan()
    for outer in (number for number in range(1, each + 1) if each % number == 0):
        expected = powers.repeat_interleave(each // outer).repeat(outer)
        if torch.equal(found[acts], expected[acts].double()):
            return outer
    return None


def _gradients(
    step: Step, batched: Sequence[bool], layers: Mapping[str, nn.Module], copies: int, powers: Tensor
) -> list[tuple[str, Tensor]]:
    """The gradient at the output of each call of a layer, projected to a few numbers a row, if the output of the step
    is weighted by random signs times these powers of two."""
    found: list[tuple[str, Tensor]] = []

    def observe(layer: str, _: Tensor, output: Tensor) -> Tensor | None:
        if not torch.is_grad_enabled() or output.ndim < 2 or not output.numel():
            return None
        leaf = output if output.requires_grad else output.detach().requires_grad_()
        leaf.register_hook(lambda gradient: found.append((layer, loudness.projected(gradient))))
        return None if leaf is output else leaf.clone()

    args, kwargs = repeated((step.args, step.kwargs), batched, copies)
    for tensor in [tensor for tensor in tensors_of((args, kwargs)) if tensor.is_floating_point()][:1]:
        tensor.requires_grad_()  # a checkpointed block needs one input with a gradient
    with torch.enable_grad(), hooked(layers, observe), differentiating(f"a call of {type(step.module).__name__}"):
        ends = [output for output in step.again(args, kwargs) if output.requires_grad]
        if ends:
            factors = powers.float().exp2()
            torch.autograd.backward(ends, [loudness.weights(end, factors, 2 + i) for i, end in enumerate(ends)])
    return found
