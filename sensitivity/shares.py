"""Which rows of a layer's input are of which sample of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn

from sensitivity.nested import Listed, alone, leaves_of
from sensitivity.unroll import Step

Shares = Callable[[str, int], Sequence[int] | None]  # (layer, rows of its input) -> how many each sample has, if known


def shares_of(step: Step, batched: Sequence[bool], layers: Mapping[str, nn.Module]) -> Shares:
    """How the rows of a layer's input, those of a sample one after the other, belong to the samples of a call.

    To each as many, unless the batch is a list, whose samples may differ in shape, or be taken one after the other:
    then as many as the layer gets where the call is made for each sample alone, if these add up. batched: of the step,
    see `unroll.batched`.
    """
    if not any(isinstance(leaf, Listed) for leaf in leaves_of((step.args, step.kwargs))):
        return lambda _, rows: None if rows % step.rows else [rows // step.rows] * step.rows
    singles = [
        _lengths(partial(step.again, *alone((step.args, step.kwargs), batched, row, step.rows)), layers)
        for row in range(step.rows)
    ]
    told: dict[tuple[str, int], set[tuple[int, ...]]] = {}
    for layer in layers:
        for lengths in zip(*(single[layer] for single in singles), strict=False):
            told.setdefault((layer, sum(lengths)), set()).add(lengths)
    certain = {key: next(iter(some)) for key, some in told.items() if len(some) == 1}
    return lambda layer, rows: certain.get((layer, rows))


@torch.no_grad()
def _lengths(call: Callable[[], object], layers: Mapping[str, nn.Module]) -> dict[str, list[int]]:
    """How many rows each call of a layer gets."""
    found: dict[str, list[int]] = {layer: [] for layer in layers}

    def watch(layer: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Tensor, ...], kwargs: Mapping[str, Tensor]) -> None:
            given = args[0] if args else kwargs["input"]
            found[layer].append(len(given) if given.ndim else 0)

        return hook

    with ExitStack() as stack:
        for name, layer in layers.items():
            stack.callback(layer.register_forward_pre_hook(watch(name), with_kwargs=True).remove)
        call()
    return found
