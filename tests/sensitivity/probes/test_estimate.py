"""Responses against brute force: the change of a reading times the probe, on a toy that is linear in every layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bitplan.sensitivity.metrics import METRICS, Metric
from bitplan.sensitivity.probes.chain import draw
from bitplan.sensitivity.probes.unroll import frozen
from tests.sensitivity.probes.bench import (
    KEPT,
    LAYERS,
    PROMPTS,
    STEPS,
    WIDTH,
    Bench,
    Drawn,
    guided_sampler,
    images_of,
    jumping_sampler,
    plain_sampler,
    summed,
    time_at,
    wordy_sampler,
)


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
