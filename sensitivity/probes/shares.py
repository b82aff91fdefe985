"""Which rows of a layer's input are of which sample of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from bitplan.sensitivity.probes.unroll import Step, alike
from bitplan.sensitivity.runs.nested import SampleList, alone, leaves_of, repeated

COPIES = 2  # of a batch, in a trial
LOUDER = 1.5  # what a layer puts out, for some rows of a trial
Rows = tuple[str, int]  # a layer and how many rows its input has


@dataclass(frozen=True)
class Shares:
    """batch: B, of a call; told: how many rows of a layer's input each sample has, where that is not as many for each;
    single: layers that get one row for the whole batch, and may as well put out one for each sample."""

    batch: int
    told: Mapping[Rows, Sequence[int]] | None
    single: frozenset[str]

    def of(self, layer: str, rows: int) -> Sequence[int] | None:
        """How many rows each sample has, those of a sample one after the other; None where nobody can tell."""
        if self.told is not None:
            return self.told.get((layer, rows))
        return None if rows % self.batch else [rows // self.batch] * self.batch

    def widened(self, layer: str, given: Tensor, output: Tensor, copies: int) -> tuple[Tensor, Tensor]:
        """Input and output of a layer, with a row for each sample of each copy where it is `single`."""
        rows = copies * self.batch
        if layer not in self.single or not _is_single(given, output) or rows == 1:
            return given, output
        return _spread(given, rows), _spread(output, rows)


def shares_of(
    step: Step, batched: Sequence[bool], layers: Mapping[str, nn.Module], single: frozenset[str]
) -> Shares:  # fmt: skip
    """Of a call. batched: of the step, see `unroll.batched`; single: see `single_layers`.

    Where the batch is a list, whose samples may differ in shape or be taken one after the other, a sample has the rows
    that the layer gets where the call is made for it alone, if these add up.
    """
    lists = any(isinstance(leaf, SampleList) for leaf in leaves_of((step.args, step.kwargs)))
    return Shares(step.rows, _told(step, batched, layers) if lists else None, single)


def _told(step: Step, batched: Sequence[bool], layers: Mapping[str, nn.Module]) -> dict[Rows, tuple[int, ...]]:
    found: dict[Rows, set[tuple[int, ...]]] = {}
    calls = [
        _lengths(partial(step.again, *alone((step.args, step.kwargs), batched, row, step.rows)), layers)
        for row in range(step.rows)
    ]
    for layer in layers:
        for lengths in zip(*(one[layer] for one in calls), strict=False):
            found.setdefault((layer, sum(lengths)), set()).add(lengths)
    return {key: next(iter(some)) for key, some in found.items() if len(some) == 1}


@torch.no_grad()
def _lengths(call: Callable[[], object], layers: Mapping[str, nn.Module]) -> dict[str, list[int]]:
    """How many rows each call of a layer gets."""
    found: dict[str, list[int]] = {layer: [] for layer in layers}
    with hooked(layers, lambda layer, given, _: found[layer].append(len(given) if given.ndim else 0)):
        call()
    return found


@torch.no_grad()
def single_layers(step: Step, batched: Sequence[bool], layers: Mapping[str, nn.Module]) -> frozenset[str]:
    """The layers that get one row for the whole batch, such as a time or a table of positions, and whose output can be
    given to each sample: each then acts on that sample alone, which is tried."""
    args, kwargs = repeated((step.args, step.kwargs), batched, COPIES)
    loud = torch.rand(COPIES * step.rows, generator=torch.Generator().manual_seed(2)) < 0.5
    loud[:2] = torch.tensor([False, True])  # some of each
    found: list[str] = []
    tried: dict[str, bool] = {}

    def run(louder: str | None) -> tuple[list[Tensor], list[str]]:
        seen: list[str] = []

        def change(layer: str, given: Tensor, output: Tensor) -> Tensor | None:
            if not _is_single(given, output):
                return None
            seen.append(layer)
            if layer not in found and layer != louder:
                return None
            wide = _spread(output, len(loud))
            wide[loud.to(wide.device)] *= LOUDER if layer == louder else 1
            return wide

        with hooked(layers, change):
            return step.again(args, kwargs), seen

    while (layer := next((one for one in run(None)[1] if one not in tried), None)) is not None:
        tried[layer] = _acts_alone(step, lambda one=layer: run(one)[0], loud)
        found += [layer] * tried[layer]
    return frozenset(found)


def _acts_alone(step: Step, run: Callable[[], Sequence[Tensor]], loud: Tensor) -> bool:
    """Whether of several copies of a call, with the layer louder in some rows, these rows alone come out otherwise."""
    try:
        returned = run()
    except Exception:  # whatever a module throws that gets a row for each where it knows one for all
        return False
    changed = torch.zeros(len(loud), dtype=torch.bool)
    for one, other in zip(step.outputs, returned, strict=True):
        full = torch.cat([one.detach()] * COPIES)
        if other.shape != full.shape or not alike(full[~loud], other[~loud]):
            return False
        changed |= (full != other).flatten(1).any(1).cpu()
    return bool(changed[loud].all())


def _is_single(given: Tensor, output: Tensor) -> bool:
    return given.ndim > 0 and output.ndim > 1 and len(given) == len(output) == 1


def _spread(row: Tensor, rows: int) -> Tensor:
    return row.repeat(rows, *(1,) * (row.ndim - 1))


@contextmanager
def hooked(layers: Mapping[str, nn.Module], watch: Callable[[str, Tensor, Tensor], Tensor | None]) -> Iterator[None]:
    """Within the `with`, `watch` sees each layer's input and output, and may give another output."""

    def hook(layer: str) -> Callable[..., Tensor | None]:
        return lambda _, args, kwargs, output: watch(layer, args[0] if args else kwargs["input"], output)

    with ExitStack() as stack:
        for name, layer in layers.items():
            stack.callback(layer.register_forward_hook(hook(name), with_kwargs=True).remove)
        yield
