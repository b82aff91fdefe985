"""Finds which rows of a layer's input belong to which sample of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from bitplan.sensitivity.probes.batches import alike
from bitplan.sensitivity.probes.rows import Order, Orders, Rows
from bitplan.sensitivity.probes.unroll import Step
from bitplan.sensitivity.runs.nested import SampleList, alone, leaves_of, repeated
from bitplan.sensitivity.shortage import is_shortage

COPIES = 2  # copies of a batch in a trial
FACTOR = 1.5  # scales the output of a layer for some rows of a trial


@dataclass(frozen=True)
class Shares:
    """The rows of each sample in the inputs of layers, in one call.

    Attributes:
        batch: B, the batch size of the call.
        lengths: the number of rows of each sample in the input of a layer, if samples may differ; else None.
        single: layers that get one row for the whole batch and whose output may be repeated for each sample.
        orders: the order of the rows of a layer, where a trial told it.
    """

    batch: int
    lengths: Mapping[Rows, Sequence[int]] | None
    single: frozenset[str]
    orders: Orders = field(default_factory=dict)

    def order(self, layer: str, rows: int, copies: int) -> Order | None:
        """The order of a layer's rows in a call with several copies of the batch, or None if it is unknown."""
        if self.lengths is not None:
            return None if rows % copies else Order(1, copies, 1)
        each, rest = divmod(rows, copies * self.batch)
        outer = self.orders.get((layer, each), 1)
        return None if rest or outer is None else Order(outer, copies, self.batch)

    def of(self, layer: str, rows: int) -> Sequence[int] | None:
        """The number of rows of each sample, which are consecutive, or None if it is unknown."""
        if self.lengths is not None:
            return self.lengths.get((layer, rows))
        return None if rows % self.batch else [rows // self.batch] * self.batch

    def widened(self, layer: str, x: Tensor, output: Tensor, copies: int) -> tuple[Tensor, Tensor]:
        """Input and output of a layer; those of a `single` layer with a row for each sample of each copy."""
        rows = copies * self.batch
        if layer not in self.single or not _is_single(x, output) or rows == 1:
            return x, output
        return _spread(x, rows), _spread(output, rows)


def shares_of(
    step: Step, batched: Sequence[bool], layers: Mapping[str, nn.Module], single: frozenset[str], orders: Orders
) -> Shares:  # fmt: skip
    """Return which rows of each layer's input belong to which sample of a call.

    If the batch is a list, its samples may differ in shape or be processed one after the other. The rows of a sample
    are then counted in a call for this sample alone, and used if the counts of all samples add up to the layer's rows.

    Args:
        step: the call.
        batched: which argument tensors have a batch, from `batches.batched`.
        layers: address -> layer.
        single: layers with one row for the whole batch, from `single_layers`.
        orders: of the rows of layers, from `order_trial.orders_of`.
    """
    lists = any(isinstance(leaf, SampleList) for leaf in leaves_of((step.args, step.kwargs)))
    return Shares(step.rows, _lengths_by_layer(step, batched, layers) if lists else None, single, orders)


def _lengths_by_layer(
    step: Step, batched: Sequence[bool], layers: Mapping[str, nn.Module]
) -> dict[Rows, tuple[int, ...]]:
    by_rows: dict[Rows, set[tuple[int, ...]]] = {}
    calls = [
        _lengths(partial(step.again, *alone((step.args, step.kwargs), batched, row, step.rows)), layers)
        for row in range(step.rows)
    ]
    for layer in layers:
        for lengths in zip(*(one[layer] for one in calls), strict=False):
            by_rows.setdefault((layer, sum(lengths)), set()).add(lengths)
    return {key: next(iter(several)) for key, several in by_rows.items() if len(several) == 1}


@torch.no_grad()
def _lengths(call: Callable[[], object], layers: Mapping[str, nn.Module]) -> dict[str, list[int]]:
    """Layer -> the number of rows that it gets in each of its calls."""
    lengths: dict[str, list[int]] = {layer: [] for layer in layers}
    with hooked(layers, lambda layer, x, _: lengths[layer].append(len(x) if x.ndim else 0)):
        call()
    return lengths


@torch.no_grad()
def single_layers(step: Step, batched: Sequence[bool], layers: Mapping[str, nn.Module]) -> frozenset[str]:
    """The layers that get one row for the whole batch, such as a time, and whose output may be repeated for each
    sample. A trial shows that each repeated row acts on its own sample alone."""
    args, kwargs = repeated((step.args, step.kwargs), batched, COPIES)
    scaled = _half_of(COPIES * step.rows)
    single: list[str] = []
    tried: dict[str, bool] = {}

    def run(candidate: str | None) -> tuple[list[Tensor], list[str]]:
        called: list[str] = []  # the layers that got one row

        def change(layer: str, x: Tensor, output: Tensor) -> Tensor | None:
            if not _is_single(x, output):
                return None
            called.append(layer)
            if layer not in single and layer != candidate:
                return None
            wide = _spread(output, len(scaled))
            wide[scaled.to(wide.device)] *= FACTOR if layer == candidate else 1
            return wide

        with hooked(layers, change):
            return step.again(args, kwargs), called

    while (layer := next((one for one in run(None)[1] if one not in tried), None)) is not None:
        tried[layer] = _acts_alone(step, lambda one=layer: run(one)[0], scaled)
        single += [layer] * tried[layer]
    return frozenset(single)


def _half_of(rows: int) -> Tensor:
    """Returns a mask of about half the rows; it contains at least one of each."""
    drawn = torch.rand(rows, generator=torch.Generator().manual_seed(2), dtype=torch.float32, device="cpu") < 0.5
    drawn[0], drawn[1] = False, True
    return drawn


def _acts_alone(step: Step, run: Callable[[], Sequence[Tensor]], scaled: Tensor) -> bool:
    """Whether scaling a layer's output in some rows changes all these rows of the outputs and no others."""
    try:
        returned = run()
    except Exception as error:  # a module may raise anything if it gets a row for each sample and expects one for all
        if is_shortage(error):
            raise
        return False
    changed = torch.zeros(len(scaled), dtype=torch.bool, device="cpu")
    for one, other in zip(step.outputs, returned, strict=True):
        full = torch.cat([one.detach()] * COPIES)
        if other.shape != full.shape or not alike(full[~scaled], other[~scaled]):
            return False
        changed |= (full != other).flatten(1).any(1).cpu()
    return bool(changed[scaled].all())


def _is_single(x: Tensor, output: Tensor) -> bool:
    return x.ndim > 0 and output.ndim > 1 and len(x) == len(output) == 1


def _spread(row: Tensor, rows: int) -> Tensor:
    return row.repeat(rows, *(1,) * (row.ndim - 1))


@contextmanager
def hooked(layers: Mapping[str, nn.Module], observe: Callable[[str, Tensor, Tensor], Tensor | None]) -> Iterator[None]:
    """Within the `with`, `observe` gets each layer's name, input and output, and may return another output."""

    def hook(layer: str) -> Callable[..., Tensor | None]:
        return lambda _, args, kwargs, output: observe(layer, args[0] if args else kwargs["input"], output)

    with ExitStack() as stack:
        for name, layer in layers.items():
            stack.callback(layer.register_forward_hook(hook(name), with_kwargs=True).remove)
        yield


@contextmanager
def called(layers: Mapping[str, nn.Module]) -> Iterator[set[str]]:
    """Within the `with`, collects the names of the layers that are called on at least one number."""
    names: set[str] = set()
    with hooked(layers, lambda layer, x, _: names.add(layer) if x.numel() else None):
        yield names
