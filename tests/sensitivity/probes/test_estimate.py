"""Responses against brute force: the change of a reading times the probe, on a toy that is linear in every layer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
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
        return Chain(steps, images, kept, dict.fromkeys(range(len(steps)), 1.0), grows, frozenset([self.toy]))

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


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("sampler", [plain_sampler, wordy_sampler, guided_sampler, jumping_sampler])
def test_responses_on_images_are_those_of_brute_force(sampler: Any, layer: str) -> None:
    """By prompt, too; through all later steps."""
    bench, drawn = Bench(sampler), Drawn("images")
    _, found = bench.respond(drawn)
    with torch.no_grad():
        change = sampler(bench.changed("tiny", layer), bench.start) - bench.run()
    expected = images_of(drawn, change)
    mine = summed(found, (layer, "tiny"), drawn.metric.name)
    assert mine.shape == (4, PROMPTS)
    torch.testing.assert_close(mine.double(), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().mean()))
    assert float(expected.abs().min()) > 0


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("sampler", [plain_sampler, guided_sampler])
def test_responses_on_denoised_outputs_are_of_one_call_alone(sampler: Any, layer: str) -> None:
    bench, drawn = Bench(sampler), Drawn("denoised")
    chain, found = bench.respond(drawn)
    toy = bench.changed("tiny", layer)
    drawn_by_place = [drawn.weights[i * 4 : i * 4 + 4] for i in range(len(KEPT))]
    for place, weights in zip(KEPT, drawn_by_place, strict=True):
        step = chain.steps[place]
        with torch.no_grad():
            change = toy(*step.args) - bench.toy(*step.args)
        expected = torch.stack([(v * change).sum(-1) for v in weights])
        mine = found[place][layer, "tiny"][drawn.metric.name]
        assert mine.shape == (4, step.rows)
        torch.testing.assert_close(mine.double(), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().mean()))
    assert not found[1]  # nothing was asked of that call


def test_responses_of_layers_that_do_not_interact_add_up() -> None:
    """Exactly, however large the changes: the two are beside each other, and there is one step."""
    bench, drawn = Bench(lambda denoiser, x: denoiser(x, time_at(0))), Drawn("images")
    with frozen([bench.toy]):
        probes = draw(bench.chain_with(()), drawn.metric, 6, torch.Generator().manual_seed(0))
        found = bench.visit(bench.chain_with(()), [probes], ("first", "time"), 256)
        change = bench.sampler(bench.changed("large", "first", "time"), bench.start) - bench.run()
    both = sum(summed(found, (layer, "large"), drawn.metric.name) for layer in ("first", "time"))
    torch.testing.assert_close(both.double(), images_of(drawn, change), rtol=1e-5, atol=1e-6)


def test_mean_squared_response_is_the_squared_error() -> None:
    count, metric = 2000, METRICS["nsr"]
    bench = Bench(guided_sampler)
    with frozen([bench.toy]):
        chain = bench.chain()
        probes = draw(chain, metric, count, torch.Generator().manual_seed(0))
        found = bench.visit(chain, [probes], ("first",), 100_000)
    for place in KEPT:
        args = chain.steps[place].args
        with torch.no_grad():
            expected = metric.function(bench.toy(*args), bench.changed("large", "first")(*args))
        squared = found[place]["first", "large"]["nsr"].double().square()
        stderr = squared.std(0) / count**0.5
        assert ((squared.mean(0) - expected).abs() < 3 * stderr).all()
        assert (stderr < 0.1 * expected).all()


class Mean(nn.Module):
    """What a layer puts out for the whole batch is averaged, or given to the samples in another order."""

    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.how, self.table, self.last = how, nn.Linear(4, WIDTH).double(), nn.Linear(WIDTH, WIDTH).double()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        row = torch.tanh(self.table(torch.ones(1, 4, dtype=x.dtype)))
        if self.how == "only":
            row = row.view(1, WIDTH)
        return (
            self.last(x) * {"mean": lambda: row.mean(0), "turned": lambda: row.flip(0), "only": lambda: row}[self.how]()
        )


@pytest.mark.parametrize("how", ["mean", "turned", "only"])
def test_a_row_for_all_is_given_to_each_only_where_it_acts_on_each(how: str) -> None:
    _, found = Bench(plain_sampler, toy=Mean(how)).respond(Drawn("images"), layers=("table", "last"))
    assert {layer for pairs in found.values() for layer, _ in pairs} == {"last"}


@pytest.mark.parametrize("rows", [1, 2, 6, 9])
def test_probes_in_portions_are_the_probes_at_once(rows: int) -> None:
    """Though a portion ends in the midst of one metric's."""
    bench = Bench(plain_sampler)
    _, at_once = bench.respond(Drawn("images"), Drawn("denoised"), count=5)
    _, portions = bench.respond(Drawn("images"), Drawn("denoised"), count=5, rows=rows)
    assert portions.keys() == at_once.keys() == set(range(STEPS))
    for place, pairs in at_once.items():
        assert portions[place].keys() == pairs.keys()
        for pair, metrics in pairs.items():
            assert portions[place][pair].keys() == metrics.keys()
            for metric, sums in metrics.items():
                torch.testing.assert_close(portions[place][pair][metric], sums, rtol=1e-5, atol=1e-10)


@pytest.mark.parametrize(("prompts", "rows"), [(2, 256), (2, 2), (1, 256), (1, 3), (1, 2)])
def test_layers_that_cannot_be_told_apart_are_left_out(prompts: int, rows: int) -> None:
    """Whatever the portions: one may hold a single copy, where one input for all looks like any other."""
    bench = Bench(plain_sampler, prompts=prompts)
    _, found = bench.respond(Drawn("images"), count=5, layers=("first", "fixed", "outside"), rows=rows)
    assert {layer for pairs in found.values() for layer, _ in pairs} == {"first"}


def test_layers_that_the_denoiser_does_not_run_are_left_out() -> None:
    """Also where they are alone, so that nothing in the first call takes gradients."""
    _, found = Bench(plain_sampler).respond(Drawn("images"), Drawn("denoised"), layers=("outside",))
    assert found == {place: {} for place in range(STEPS)}


def test_a_single_copy_at_a_time_sees_every_layer() -> None:
    bench, drawn = Bench(plain_sampler, prompts=1), Drawn("images")
    _, found = bench.respond(drawn, layers=("fixed",), rows=1)
    with torch.no_grad():
        change = plain_sampler(bench.changed("tiny", "fixed"), bench.start) - bench.run()
    mine = summed(found, ("fixed", "tiny"), drawn.metric.name).double()
    torch.testing.assert_close(mine, images_of(drawn, change), rtol=1e-3, atol=1e-9)


def test_a_signed_metric_is_drawn_once() -> None:
    bench, drawn = Bench(plain_sampler), Drawn("images")
    with frozen([bench.toy]):
        metric = Metric("one", "alignment", "images", "", METRICS["nsr"].function, signed=True, probe=drawn._probe)
        probes = draw(bench.chain(), metric, 7, torch.Generator().manual_seed(0))
    assert probes.count == len(drawn.weights) == 1
    assert all(len(weights) == 1 for weights in probes.gradients.values())


def test_the_model_is_left_as_it_was() -> None:
    bench = Bench(plain_sampler)
    before = {name: value.clone() for name, value in bench.toy.state_dict().items()}
    bench.respond(Drawn("images"), Drawn("denoised"))
    assert all(torch.equal(value, before[name]) for name, value in bench.toy.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in bench.toy.parameters())
    assert not any(module._forward_hooks for module in bench.toy.modules())


class Lists(nn.Module):
    """A denoiser that takes and gives lists with a tensor for each sample, whose words are not as many."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.time, self.first, self.words = nn.Linear(1, 5), nn.Linear(WIDTH, 5), nn.Linear(2, 5)
        self.mixed, self.last = nn.Linear(5, 5), nn.Linear(5, WIDTH)
        self.double()

    def forward(self, xs: list[Tensor], t: Tensor, words: list[Tensor]) -> tuple[list[Tensor]]:
        read = self.words(torch.cat(words)).split([len(some) for some in words])
        padded = nn.utils.rnn.pad_sequence(list(read), batch_first=True)
        known = torch.stack([self.mixed(rows)[: len(some)].sum(0) for rows, some in zip(padded, words, strict=True)])
        return (list(self.last(self.first(torch.cat(xs)) + self.time(t) + known).unsqueeze(1).unbind()),)


def listing_sampler(lengths: tuple[int, ...], guided: bool) -> Callable[[nn.Module, Tensor], Tensor]:
    """lengths: of words, in turn. The words of a step depend on what came out before, as those of a text encoder do."""

    def sample(denoiser: nn.Module, start: Tensor) -> Tensor:
        x = start
        for i in range(STEPS):
            words = [row[:2].expand(lengths[j % len(lengths)], 2) + i for j, row in enumerate(x)]
            given = torch.cat([x, 2 * x + 1]) if guided else x
            words += [row[1:].expand(1, 2) for row in x] if guided else []
            t = torch.full((len(given), 1), 1.0 + i, dtype=x.dtype)
            out = torch.cat(denoiser(list(given[:, None].unbind()), t, words)[0])
            x = x - STEP * (out[: len(x)] + (0.5 * out[len(x) :] if guided else 0))
        return x

    return sample


@pytest.mark.parametrize("layer", ["time", "first", "words", "last"])
@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("lengths", [(2,), (2, 3), (1, 3)])  # the last ones add up to a multiple of the batch
def test_batches_that_are_lists_are_as_good_as_tensors(lengths: tuple[int, ...], guided: bool, layer: str) -> None:
    sampler = listing_sampler(lengths, guided)
    bench, images, denoised = Bench(sampler, toy=Lists()), Drawn("images"), Drawn("denoised")
    chain, found = bench.respond(images, denoised, layers=(layer,), rows=5)
    assert [step.rows for step in chain.steps] == [PROMPTS * (1 + guided)] * STEPS
    with torch.no_grad():
        change = sampler(bench.changed("tiny", layer), bench.start) - bench.run()
    expected = images_of(images, change)
    mine = summed(found, (layer, "tiny"), images.metric.name)
    torch.testing.assert_close(mine.double(), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().mean()))
    assert found[0][layer, "tiny"][denoised.metric.name].shape == (4, PROMPTS * (1 + guided))


def test_a_layer_of_a_list_whose_rows_have_no_owner_is_left_out() -> None:
    """It is called for one sample after the other: those of a copy do not follow each other in its input."""
    for lengths, rows in (((2,), 2), ((8,), 256), ((2, 3), 2)):
        bench = Bench(listing_sampler(lengths, False), toy=Lists())
        _, found = bench.respond(Drawn("images"), layers=("mixed",), rows=rows)
        assert not any(found.values())
