"""Measured against a linear net whose losses are known in closed form."""

from __future__ import annotations

import math
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from bitplan.sensitivity.metrics import METRICS, TEXT_TO_IMAGE, Metric
from bitplan.sensitivity.metrics.learned import Encoder
from bitplan.sensitivity.runs.exhaustive import measure
from bitplan.sensitivity.runs.outcome import Outcome
from bitplan.sensitivity.table import MeasurementError

torch.set_num_threads(1)
NSR = (METRICS["nsr"],)
PROMPTS = ("a", "bb", "ccc")


class Toy:
    """y = W2 W1 x on cached inputs, and three pictures of y's first numbers. A scheme `x1.5` multiplies a layer."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 5, bias=False), nn.Linear(5, 4, bias=False))
        self.inputs = torch.randn(6, 6)  # 3 prompts at 2 timesteps
        self.runs = 0

    @torch.no_grad()
    def run(self) -> Outcome:
        self.runs += 1
        y = self.net(self.inputs)
        colours = y[:3, :3].sigmoid()
        ramp = torch.linspace(0.5, 1, 16).expand(3, 3, 16, 16)
        return Outcome((y,), ramp * colours[:, :, None, None], groups=(1, 1, 1, 2, 2, 2), owners=(0, 1, 2, 0, 1, 2))

    def scaled(self, index: int, factor: float):
        @contextmanager
        def context():
            weight = self.net[index].weight
            old = weight.detach().clone()
            weight.data.mul_(factor)
            try:
                yield
            finally:
                weight.data.copy_(old)

        return context

    def variants(self, factors=(1.0, 1.5, 0.9)):
        return {(f"net.{i}", f"x{f}"): self.scaled(i, f) for i in range(2) for f in factors}


@pytest.fixture
def toy() -> Toy:
    return Toy()


def brightness() -> Encoder:
    """Images by their mean colour, texts by their length."""
    unit = nn.functional.normalize
    return Encoder(
        lambda images: unit(images.mean((2, 3)), dim=-1),
        lambda texts: unit(torch.tensor([[len(t), 1.0, 1.0] for t in texts]), dim=-1),
    )


def test_losses_are_those_of_the_closed_form(toy):
    """Scaling a layer of a linear net by f moves every output by (f - 1): NSR = (f - 1)^2 without any spread."""
    found = [m for batch in measure(toy.variants(), toy.run, toy.run(), NSR) for m in batch]
    assert [(m.layer, m.scheme) for m in found] == list(toy.variants())
    for m in found:
        assert m.mean == pytest.approx((float(m.scheme[1:]) - 1) ** 2, rel=1e-4, abs=1e-12)
        assert m.stderr < 1e-7 and m.count == 6 and m.finite and m.metric == "nsr"


def test_mean_and_standard_error_over_prompts_and_timesteps(toy):
    """A weight change dW gives NSR |dW h|^2 / |W h|^2 for hidden h; the spread is that of the prompts' means."""
    delta = 0.1 * torch.randn(4, 5)

    @contextmanager
    def shifted():
        toy.net[1].weight.data.add_(delta)
        yield
        toy.net[1].weight.data.sub_(delta)

    [[m]] = measure({("net.1", "shifted"): shifted}, toy.run, toy.run(), NSR)
    hidden = toy.inputs @ toy.net[0].weight.detach().T
    change, signal = hidden @ delta.T, hidden @ toy.net[1].weight.detach().T
    losses = (change.square().sum(1) / signal.square().sum(1)).view(2, 3)
    assert m.mean == pytest.approx(losses.mean().item(), rel=1e-4)
    assert m.stderr == pytest.approx(losses.mean(0).std().item() / math.sqrt(3), rel=1e-4)


def test_every_metric_is_measured_apart_in_order(toy):
    batches = list(measure(toy.variants(), toy.run, toy.run(), encoder=brightness(), prompts=PROMPTS))
    assert len(batches) == 6
    for batch in batches:
        assert [m.metric for m in batch] == list(TEXT_TO_IMAGE)
        assert [m.count for m in batch] == [6, 3, 3, 3]
        if batch[0].scheme == "x1.0":
            assert [m.mean for m in batch] == [0] * 4
        else:
            assert batch[0].mean > 0 and batch[1].mean > 0 and batch[3].mean > 0 and batch[2].mean != 0


def test_similarity_pairs_each_image_with_its_prompt(toy):
    encoder, reference = brightness(), toy.run()
    [[m]] = measure({("net.0", "x2"): toy.scaled(0, 2)}, toy.run, reference, [METRICS["clip_drop"]], encoder, PROMPTS)
    with toy.scaled(0, 2)():
        changed = toy.run()
    texts = encoder.text(PROMPTS)
    drops = [
        float(texts[i] @ encoder.image(reference.outputs)[i] - texts[i] @ encoder.image(changed.outputs)[i])
        for i in range(3)
    ]
    assert m.mean == pytest.approx(sum(drops) / 3, rel=1e-4)


def test_each_variant_is_left_before_its_losses_come_out(toy):
    before = [layer.weight.detach().clone() for layer in toy.net]
    generator = measure(toy.variants(), toy.run, toy.run(), NSR)
    for _ in range(3):
        next(generator)
        assert all(torch.equal(a, layer.weight) for a, layer in zip(before, toy.net, strict=True))
        assert torch.is_grad_enabled()
    assert toy.runs == 4  # one for the reference: nothing is run ahead of what is asked for
    generator.close()


def test_resuming_with_the_pending_ones_gives_the_same_numbers(toy):
    whole = list(measure(toy.variants(), toy.run, toy.run(), encoder=brightness(), prompts=PROMPTS))
    pending = dict(list(toy.variants().items())[4:])
    again = list(measure(pending, toy.run, toy.run(), encoder=brightness(), prompts=PROMPTS))
    assert again == whole[4:]


@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_a_broken_variant_is_measured_as_silence_and_marked(toy, factor):
    variants = toy.variants([factor, 1.5])
    broken, fine, *_ = measure(variants, toy.run, toy.run(), encoder=brightness(), prompts=PROMPTS)
    assert not any(m.finite for m in broken) and all(m.finite for m in fine)
    assert broken[0].mean == 1.0  # no signal left: all of it is noise
    assert all(math.isfinite(m.mean) for m in broken)
    if math.isnan(factor):
        assert broken[1].mean > 0.9 and broken[3].mean == 0.5  # black pictures, and an embedding of no length


def test_a_broken_reference_is_refused(toy):
    reference = toy.run()
    reference.denoised[0][2, 1] = math.nan
    with pytest.raises(MeasurementError, match=r"1 of 24 full-precision numbers \(denoised\) are not finite"):
        next(measure(toy.variants(), toy.run, reference, NSR))


def test_pictures_in_another_range_are_refused(toy):
    reference = Outcome(outputs=toy.run().outputs * 2 - 1)
    with pytest.raises(MeasurementError, match="hand in pixels in 0..1"):
        next(measure(toy.variants(), toy.run, reference, [METRICS["dssim"]]))


def test_only_what_the_metrics_read_is_needed(toy):
    reference = Outcome(denoised=toy.run().denoised)
    assert len(list(measure(toy.variants(), toy.run, reference, NSR))) == 6
    with pytest.raises(MeasurementError, match="returned no outputs"):
        next(measure(toy.variants(), toy.run, reference, [METRICS["dssim"]]))


@pytest.mark.parametrize("prompts", [(), PROMPTS[:2]])
def test_alignment_needs_an_encoder_and_a_prompt_an_image(toy, prompts):
    with pytest.raises(MeasurementError, match="need an encoder"):
        next(measure(toy.variants(), toy.run, toy.run(), [METRICS["embed_drift"]]))
    encoder = Encoder(brightness().image, lambda texts: torch.ones(len(texts), 3))
    with pytest.raises(MeasurementError, match=f"3 images have {len(prompts)} prompts"):
        next(measure(toy.variants(), toy.run, toy.run(), [METRICS["clip_drop"]], encoder, prompts))


def test_other_shapes_than_the_reference_s_are_refused(toy):
    reference = toy.run()
    toy.inputs = toy.inputs[:4]
    with pytest.raises(MeasurementError, match=r"net.0 at x1.0: denoised have shape \(4, 4\), .* \(6, 4\)"):
        next(measure(toy.variants(), toy.run, reference, NSR))


def test_a_metric_that_gives_nan_is_named(toy):
    broken = Metric("odd", "quality", "denoised", "", lambda full, variant: full[:, 0].double().log())
    with pytest.raises(MeasurementError, match=r"odd of net.0 at x1.0: \d of 6 samples are not finite"):
        next(measure(toy.variants(), toy.run, toy.run(), [broken]))


def test_a_run_that_fails_leaves_the_variant(toy):
    before, reference = toy.net[0].weight.detach().clone(), toy.run()

    def fail() -> Outcome:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        next(measure(toy.variants([3.0]), fail, reference, NSR))
    assert torch.equal(before, toy.net[0].weight)
