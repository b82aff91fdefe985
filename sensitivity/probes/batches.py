"""Finds which arguments of a call hold its batch, so that several copies of the batch can be put into one call."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor

from bitplan.sensitivity.probes.unroll import Step, not_copyable
from bitplan.sensitivity.runs.nested import Leaf, SampleList, leaves_of, repeated

SAME = 1e-3  # difference, relative to the largest number, that is rounding of another batch size


def batched(step: Step, larger: Sequence[torch.Size]) -> tuple[bool, ...]:
    """Which tensors of a call, in the order of `tensors_of`, hold the batch in their first dimension or as a list.

    These are the ones that grow with the number of samples. Others may have as many rows by chance, such as tokens.

    Args:
        step: the call.
        larger: the shapes of its arguments with one more sample (see `rehearse`).

    Raises:
        MeasurementError: copies of the batch cannot be put into one call, since an argument grows in another way, none
            grows, or one that is shared by the batch depends on a sample.
    """
    leaves = leaves_of((step.args, step.kwargs))
    if len(leaves) != len(larger):
        raise not_copyable(f"it gets {len(leaves)} tensors, and {len(larger)} with one sample more")
    grows = tuple(leaf.shape != after for leaf, after in zip(leaves, larger, strict=True))
    names = [*step.names]
    if not any(grows):
        shapes = ", ".join(f"{name} {tuple(leaf.shape)}" for name, leaf in zip(names, leaves, strict=True))
        raise not_copyable(f"its batch does not show in its arguments {shapes}")
    _check_growth(step, names, leaves, larger)
    if any(output.shape[:1] != (step.rows,) for output in step.outputs):
        raise not_copyable(f"it returns {', '.join(str(tuple(x.shape)) for x in step.outputs)} for {step.rows} rows")
    if any(isinstance(x, SampleList) or (grown and len(x) > step.rows) for x, grown in zip(leaves, grows, strict=True)):
        check_order(step, grows)
    return grows


def _check_growth(step: Step, names: Sequence[str], leaves: Sequence[Leaf], larger: Sequence[torch.Size]) -> None:
    """Raises MeasurementError unless the arguments that grow do so by the same factor in their first dimension."""
    factors: dict[Fraction, str] = {}
    for place, (name, leaf, after) in enumerate(zip(names, leaves, larger, strict=True)):
        if leaf.shape == after:
            if leaf.requires_grad or place in step.written:
                why = "depends on earlier calls" if leaf.requires_grad else "is written by the call"
                raise not_copyable(f"its argument {name}, {tuple(leaf.shape)}, is one for all samples and {why}")
            continue
        if not _holds_batch(leaf.shape, after, step.rows):
            shapes = f"{tuple(leaf.shape)} for {step.rows} rows and {tuple(after)} for more"
            raise not_copyable(f"its argument {name} has the shape {shapes}")
        factors.setdefault(Fraction(after[0], leaf.shape[0]), name)
    if len(factors) > 1:
        grown = " and ".join(f"{name} to {float(factor):.3g} times" for factor, name in factors.items())
        raise not_copyable(f"its arguments do not grow alike with the batch: {grown} its rows")


def _holds_batch(before: torch.Size, after: torch.Size, rows: int) -> bool:
    """Whether the first dimension holds the batch, once or several times, such as a text for each frame."""
    return bool(before) and not before[0] % rows and before[0] > 0 and before[1:] == after[1:]


def check_order(step: Step, grows: Sequence[bool]) -> None:
    """Run two copies of the batch in one call. Raises MeasurementError if their results differ from those of one copy.

    They differ if an argument has several rows for a sample and these do not follow each other, or if one that does
    not grow should.
    """
    args, kwargs = repeated((step.args, step.kwargs), grows, 2)
    with torch.no_grad():
        twice = step.again(args, kwargs)
    for one, two in zip(step.outputs, twice, strict=True):
        if two.shape[0] != 2 * one.shape[0] or not alike(torch.cat([one, one]), two):
            named = ", ".join(name for name, grown in zip(step.names, grows, strict=True) if grown)
            raise not_copyable(f"its arguments {named} have several rows for each of the batch, in an order of its own")


def alike(one: Tensor, two: Tensor) -> bool:
    """Whether two tensors differ at most by the rounding of another batch size."""
    near = max(SAME, 8 * torch.finfo(one.dtype).eps) * float(one.detach().abs().max()) if one.numel() else 0.0
    return torch.allclose(one, two, rtol=0, atol=near)
