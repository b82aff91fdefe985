"""A toy denoiser, its samplers, and what brute force finds of its responses."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bitplan.sensitivity.metrics import METRICS, Metric
from bitplan.sensitivity.probes.backward import Changes, Responses
from bitplan.sensitivity.probes.batches import batched
from bitplan.sensitivity.probes.chain import Chain, Probes, draw
from bitplan.sensitivity.probes.estimate import probe
from bitplan.sensitivity.probes.unroll import frozen, rehearse, unroll

PROMPTS, WIDTH, STEPS, STEP = 2, 3, 3, 0.3
LAYERS = ("time", "first", "twice", "table", "last")
KEPT = (0, 2)
TINY = 1e-5  # a change of a weight over which the whole run is linear to 1e-9


class Toy(nn.Module):
    """A denoiser without activations. time sees nothing that depends on the sample; twice is called twice; table gets
    one row for the whole batch, fixed gives it to all itself; outside is never run."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.time, self.table = nn.Linear(2, 5), nn.Linear(4, 5)
        self.first, self.twice, self.last = nn.Linear(WIDTH, 5), nn.Linear(5, 5), nn.Linear(5, WIDTH)
        self.fixed, self.outside = nn.Linear(4, 5), nn.Linear(3, 3)
        self.double()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        hidden = (
            self.first(x)
            + self.time(t.sum(0, keepdim=True).expand(len(x), 2))
            + self.table(torch.ones(1, 4, dtype=x.dtype))
            + self.fixed(torch.ones(1, 4, dtype=x.dtype))[0]
        )
        return self.last(self.twice(self.twice(hidden)))


def time_at(i: int) -> Tensor:
    return torch.tensor([[1.0 + i, 0.5 * i - 1]], dtype=torch.float64)


def plain_sampler(denoiser: nn.Module, start: Tensor) -> Tensor:
    x = start
    for i in range(STEPS):
        x = x - STEP * denoiser(x, time_at(i))
    return x


def wordy_sampler(denoiser: nn.Module, start: Tensor) -> Tensor:
    """Each call gets something for the whole batch that is as long as a batch, such as the places of two words."""
    x = start
    for i in range(STEPS):
        x = x - STEP * denoiser(x, torch.cat([time_at(i), 2 * time_at(i)]))
    return x


def guided_sampler(denoiser: nn.Module, start: Tensor) -> Tensor:
    """Unconditional rows first, then those of the prompts."""
    x = start
    for i in range(STEPS):
        free, bound = denoiser(torch.cat([x, 2 * x + 1]), time_at(i)).chunk(2)
        x = x - STEP * (free + 2.0 * (bound - free))
    return x


def jumping_sampler(denoiser: nn.Module, start: Tensor) -> Tensor:
    """The image is the last output alone: of earlier ones it depends by way of the denoiser only."""
    x = start
    for i in range(STEPS):
        x = denoiser(x, time_at(i))
    return x


@dataclass
class Drawn:
    """A metric whose probes can be looked at."""

    reads: str
    weights: list[Tensor] = field(default_factory=list)

    @property
    def metric(self) -> Metric:
        return Metric(f"toy {self.reads}", "quality", self.reads, "", METRICS["nsr"].function, probe=self._probe)

    def _probe(self, full: Tensor, generator: torch.Generator) -> Tensor:
        self.weights.append(torch.randn(full.shape, generator=generator, dtype=torch.float64))
        return self.weights[-1]


@dataclass
class Bench:
    """The toy with a sampler, and what each scheme does: scheme -> layer -> change of its weight."""

    sampler: Callable[[nn.Module, Tensor], Tensor]
    toy: nn.Module = field(default_factory=Toy)
    prompts: int = PROMPTS

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(3)
        self.start = torch.randn(self.prompts, WIDTH, dtype=torch.float64, generator=generator)
        self.deltas = {
            scheme: {name: torch.randn(layer.weight.shape, dtype=torch.float64, generator=generator) * size
                     for name, layer in self.toy.named_children()}
            for scheme, size in (("tiny", TINY), ("large", 0.1))
        }  # fmt: skip

    def run(self) -> Tensor:
        return self.sampler(self.toy, self.start)

    def chain(self) -> Chain:
        return self.chain_with(KEPT)

    def chain_with(self, kept: tuple[int, ...]) -> Chain:
        steps, images = unroll([self.toy], self.run)
        more = torch.cat([self.start, self.start[:1]])
        rehearsed = rehearse(steps, self.prompts, lambda: self.sampler(self.toy, more))
        grows, steps = [batched(*both) for both in rehearsed], [step for step, _ in rehearsed]
        return Chain(steps, images, kept, dict.fromkeys(range(len(steps)), 1.0), grows)

    def changes(self, layer: str) -> Changes:
        def of(x: Tensor) -> Iterable[tuple[str, Tensor]]:
            return ((scheme, x @ deltas[layer].T) for scheme, deltas in self.deltas.items())

        return of

    def respond(self, *drawn: Drawn, count: int = 4, layers: Iterable[str] = LAYERS, rows: int = 256) -> Any:
        """The chain, and by pair and metric the responses: of images summed over the steps, else by step."""
        with frozen([self.toy]):
            chain = self.chain()
            generator = torch.Generator().manual_seed(5)
            probes = [draw(chain, one.metric, count, generator) for one in drawn]
            return chain, dict(self.visit(chain, probes, layers, rows))

    def visit(self, chain: Chain, probes: list[Probes], layers: Iterable[str], rows: int) -> dict[int, Responses]:
        modules = {name: getattr(self.toy, name) for name in layers}
        return dict(probe(chain, modules, {name: self.changes(name) for name in modules}, probes, rows))

    def changed(self, scheme: str, *layers: str) -> Any:
        toy = copy.deepcopy(self.toy)
        with torch.no_grad():
            for layer in layers:
                getattr(toy, layer).weight += self.deltas[scheme][layer]
        return toy


def summed(found: Mapping[int, Responses], pair: tuple[str, str], metric: str) -> Tensor:
    return torch.stack([found[place][pair][metric] for place in sorted(found)]).sum(0)


def images_of(drawn: Drawn, change: Tensor) -> Tensor:
    """(K, P): each probe times the change of each image."""
    return torch.stack([(v * change).sum(-1) for v in drawn.weights])
