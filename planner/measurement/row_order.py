"""Tells which rows of a denoiser's calls belong to which sample of a run, by a run of the first sample alone.

Guidance repeats all samples one behind the other, or each of them; frames may be folded into the batch. The order in
which the rows of the first sample are nearest to those that it has alone holds for all samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from bitplan.sensitivity.probes.rows import Order

Part = tuple[int, range]  # a call's number among those of its run, and the samples of that run
Place = tuple[int, tuple[int, ...]]  # a call's number among those of its run, and the sample of each of its rows


def places_of(
    denoised: Sequence[Tensor], parts: Sequence[Part], alone: Callable[[], Sequence[Tensor]]
) -> tuple[Place, ...]:  # fmt: skip
    """The places of calls, whose rows are several for each sample.

    Args:
        denoised: (B, ...) the output of each call.
        parts: of each call.
        alone: runs the first sample of the first run, and returns the outputs of its calls.
    """
    several = any(len(rows) > len(own) > 1 for rows, (_, own) in zip(denoised, parts, strict=True))
    single = dict(enumerate(alone() if several else ()))
    outer: dict[int, int] = {}
    for rows, (number, own) in zip(denoised, parts, strict=True):
        if number not in outer and number in single:
            outer[number] = _repetitions(rows, single[number], len(own))
    return tuple(
        (number, _owners(own, len(rows) // len(own), outer.get(number)))
        for rows, (number, own) in zip(denoised, parts, strict=True)
    )


def _repetitions(rows: Tensor, single: Tensor, samples: int) -> int:
    """How often a batch repeats its samples, one behind the other; the most often if it is not known."""
    each = len(rows) // samples
    if single.shape != (each, *rows.shape[1:]):
        return each
    alone = single.double()
    numbers = [number for number in range(each, 0, -1) if each % number == 0]
    return min(numbers, key=lambda outer: float((Order(outer, samples, 1).one_copy(rows).double() - alone).norm()))


def _owners(samples: range, each: int, outer: int | None) -> tuple[int, ...]:
    """The sample of each row. each: the number of rows of a sample; outer: how often all samples are repeated."""
    repeated = outer if outer and each % outer == 0 else each
    inner = each // repeated if repeated else 0
    return tuple(sample for sample in samples for _ in range(inner)) * repeated
