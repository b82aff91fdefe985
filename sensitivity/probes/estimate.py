"""Sensitivity by probes: the effect of every layer's output change on every metric, from a few backward passes.

For a random vector v on a reading (the denoiser's output, the image, its embedding) one backward pass gives
g = d(v.reading)/d(layer output) at every layer. A scheme changes the output of its layer by dy, which a local product
gives. To first order v.(change of the reading) is the sum of g.dy over all elements of the output and all steps, and
the mean of its square over v is the loss (`Metric.probe`). The sum precedes the square, so that errors that cancel
count as cancelling; a sum of squares over elements (diagonal Fisher, as in NVIDIA ModelOpt's `auto_quantize`) ignores
that. The sums are stored as responses: those of several layers add up before they are squared, so that the loss of any
whole plan, cross terms included, needs no further run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from bitplan.sensitivity.probes.backward import Changes, Product, Responses, Subjects, Visit, portions
from bitplan.sensitivity.probes.chain import Chain, Probes
from bitplan.sensitivity.probes.order_trial import orders_of
from bitplan.sensitivity.probes.rows import Orders
from bitplan.sensitivity.probes.shares import COPIES, shares_of, single_layers


def probe(
    chain: Chain, layers: Mapping[str, nn.Module], changes: Mapping[str, Changes], probes: Sequence[Probes],
    rows: int = 256, product: Product = torch.bmm,
) -> Iterator[tuple[int, Responses]]:  # fmt: skip
    """Follow the chain backwards once and yield the index of each differentiated step with its responses.

    Responses of metrics of the result are to be added up over steps; those of denoised outputs are about the samples of
    that step. A layer is left out if the sample of each of its rows is unknown (`bitplan.sensitivity.probes.shares`).

    Args:
        chain: the unrolled run.
        layers: name -> module.
        changes: name -> the output changes of the layer's schemes.
        probes: the probes.
        rows: the largest batch of one call.
        product: (R, K, N) gradients and (R, N, S) changes to (R, K, S), their sum over N; another one gives other
            scores for comparisons.
    """
    subjects = Subjects(layers, changes, product)
    trials: dict[tuple[nn.Module, int], tuple[frozenset[str], Orders]] = {}
    for index in sorted(chain.weights, reverse=True):
        responses, left_out = Responses(), set[str]()
        step, batched = chain.steps[index], chain.batched[index]
        room = 1 if chain.alone else max(1, rows // step.rows)
        if (step.module, step.rows) not in trials:  # a module treats rows alike in all its steps
            trials[step.module, step.rows] = _trials(chain, index, layers, min(room, COPIES))
        shares = shares_of(step, batched, layers, *trials[step.module, step.rows])
        for portion in portions(probes, index, room):
            left_out |= layers.keys() - Visit(chain, index, subjects, shares, portion, responses).run()
        yield index, responses.without(left_out)


def _trials(
    chain: Chain, index: int, layers: Mapping[str, nn.Module], copies: int
) -> tuple[frozenset[str], Orders]:  # fmt: skip
    """The layers with one row for all samples of a step, and the order of the rows of the others."""
    step, batched = chain.steps[index], chain.batched[index]
    if chain.alone:
        return frozenset(), {}
    return single_layers(step, batched, layers), orders_of(step, batched, layers, copies)


def join_responses(
    chain: Chain, by_step: Mapping[int, Responses], probes: Sequence[Probes]
) -> dict[tuple[str, str], dict[str, Tensor]]:
    """Join the responses of all differentiated steps, of layers that ran on known samples alone.

    Those of the result are added up with the weights of the steps. Those of denoised outputs are put side by side; they
    are 0 for a layer that only other steps run.
    """
    unknown = set().union(*(responses.unknown for responses in by_step.values()))
    pairs = dict.fromkeys(pair for responses in by_step.values() for pair in responses if pair[0] not in unknown)
    joined: dict[tuple[str, str], dict[str, Tensor]] = {pair: {} for pair in pairs}
    for pair, metrics in joined.items():
        for each in probes:
            sums = {
                index: by_step[index][pair][each.metric]
                for index in sorted(by_step)
                if each.metric in by_step[index].get(pair, {})
            }
            if each.propagates and sums:
                weighted = [one * chain.weights[index] for index, one in sums.items()]
                metrics[each.metric] = torch.stack(weighted).sum(0)
            elif not each.propagates:
                parts = [
                    sums.get(i, torch.zeros(each.count, chain.steps[i].rows, dtype=torch.float32, device="cpu"))
                    for i in chain.readout
                ]
                metrics[each.metric] = torch.cat(parts, 1)
    return joined
