"""What every metric of the table promises, on real readings of small random runs."""

from __future__ import annotations

import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from sensitivity.metrics import METRICS, Encoder, Metric
from sensitivity.metrics.learned import clip_encoder
from sensitivity.outcome import READINGS, Outcome, clean, read
from sensitivity.table import FAMILIES

SAMPLES = 6
EVERY = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.manual_seed(0)
    text = {
        "vocab_size": 20,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    vision = dict(text, image_size=32, patch_size=8)
    vision.pop("vocab_size")
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).eval()
    with torch.no_grad():  # the default initialisation of 0.02 is nearly blind to its input
        for parameter in model.parameters():
            parameter.mul_(10) if parameter.ndim > 1 else None
    return clip_encoder(model, None, [0.5] * 3, [0.5] * 3)


@pytest.fixture(scope="module")
def full() -> Outcome:
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(SAMPLES, 3, 4, 4, generator=generator)
    images = torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bilinear")
    return Outcome((torch.randn(SAMPLES, 4, 8, 8, generator=generator),), images)


def noisy(outcome: Outcome, noise: float, seed: int = 2) -> Outcome:
    """The outcome with Gaussian noise of standard deviation `noise`."""
    generator = torch.Generator().manual_seed(seed)
    changed = [x + noise * torch.randn(x.shape, generator=generator) for x in (*outcome.denoised, outcome.outputs)]
    return clean(Outcome((changed[0],), changed[1]))[0]


def loss(metric: Metric, encoder: Encoder, full: Outcome, variant: Outcome) -> torch.Tensor:
    """The samples; each full-precision image is its own prompt, so that any change can only lose similarity."""
    with torch.no_grad():
        texts = encoder.image(full.outputs)
        before, after = (single(read(x, [metric.reads], encoder, texts)[metric.reads]) for x in (full, variant))
    return metric.function(before, after)


def single(reading: torch.Tensor | tuple[torch.Tensor]) -> torch.Tensor:
    """Of denoised outputs, those of the one call."""
    return reading if isinstance(reading, torch.Tensor) else reading[0]


@EVERY
def test_is_filed(metric):
    assert metric.family in FAMILIES and metric.reads in READINGS and metric.says
    assert METRICS[metric.name] is metric


def test_each_family_has_members():
    assert {metric.family for metric in METRICS.values()} == set(FAMILIES)


@EVERY
def test_zero_for_identical(metric, encoder, full):
    assert loss(metric, encoder, full, full).abs().max() < 1e-12


@EVERY
def test_one_float64_loss_a_sample(metric, encoder, full):
    losses = loss(metric, encoder, full, noisy(full, 0.1))
    assert losses.shape == (SAMPLES,) and losses.dtype == torch.float64
    assert len(set(losses.tolist())) == SAMPLES


@EVERY
def test_grows_with_noise_on_average(metric, encoder, full):
    means = [
        torch.cat([loss(metric, encoder, full, noisy(full, noise, seed)) for seed in range(3)]).mean()
        for noise in (0.01, 0.03, 0.1, 0.3)
    ]
    assert means[0] > 0
    assert all(small < large for small, large in zip(means, means[1:], strict=False))


@EVERY
def test_sign(metric, encoder, full):
    """A signed metric turns its sign when the runs are swapped; all others stay at 0 or above for any pair."""
    variant = noisy(full, 0.2)
    before, after = loss(metric, encoder, full, variant), loss(metric, encoder, variant, full)
    if metric.signed:
        readings = torch.tensor([0.1, 0.7]), torch.tensor([0.4, 0.2])
        assert (metric.function(*readings) < 0).tolist() == [True, False]
    else:
        assert min(before.min(), after.min()) >= 0


@EVERY
def test_symmetry(metric, encoder, full):
    with torch.no_grad():
        texts = encoder.image(full.outputs)
        a, b = (single(read(x, [metric.reads], encoder, texts)[metric.reads]) for x in (full, noisy(full, 0.2)))
    assert torch.allclose(metric.function(a, b), metric.function(b, a), rtol=1e-9, atol=0) == metric.symmetric


@EVERY
def test_samples_are_independent_of_their_batch(metric, encoder, full):
    variant = noisy(full, 0.1)
    whole = loss(metric, encoder, full, variant)
    for i in range(SAMPLES):
        row = slice(i, i + 1)
        alone = loss(metric, encoder, *(Outcome((x.denoised[0][row],), x.outputs[row]) for x in (full, variant)))
        assert torch.allclose(alone, whole[row], rtol=1e-4, atol=1e-7)


@EVERY
def test_half_precision_readings_are_compared_in_double(metric, encoder, full):
    """Rounding the inputs to float16 must not be made worse by squaring or subtracting in float16."""
    with torch.no_grad():
        texts = encoder.image(full.outputs)
        a, b = (single(read(x, [metric.reads], encoder, texts)[metric.reads]).half() for x in (full, noisy(full, 0.1)))
    half, double = metric.function(a, b), metric.function(a.double(), b.double())
    assert torch.allclose(half, double, rtol=1e-12, atol=1e-15)


PROBED = pytest.mark.parametrize("metric", [m for m in METRICS.values() if m.probe], ids=lambda m: m.name)


def reading(metric: Metric, encoder: Encoder, outcome: Outcome) -> torch.Tensor:
    with torch.no_grad():
        return single(read(outcome, [metric.reads], encoder, encoder.image(outcome.outputs))[metric.reads]).double()


def small_change(metric: Metric, before: torch.Tensor) -> torch.Tensor:
    """A change of 1 part in 1000 that the reading can have: unit embeddings stay unit; images change smoothly."""
    drawn = torch.randn(before.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    if metric.reads == "embeds":
        return torch.nn.functional.normalize(before + 1e-3 * drawn, dim=-1) - before
    if metric.reads == "images":
        drawn = torch.nn.functional.avg_pool2d(drawn, 5, stride=1, padding=2) + 0.5  # contrast and brightness alike
    return 1e-3 * drawn


@PROBED
def test_probes_tell_the_loss_of_a_small_change(metric, encoder, full):
    """To second order on average over draws, and a signed one to first order at once."""
    before = reading(metric, encoder, full)
    change = small_change(metric, before)
    expected = metric.function(before, before + change)
    generator = torch.Generator().manual_seed(0)
    if metric.signed:
        found = (metric.probe(before, generator) * change).reshape(len(before), -1).sum(1)
        assert torch.allclose(found, expected, rtol=1e-3, atol=1e-9)
        return
    draws = [(metric.probe(before, generator) * change).flatten(1).sum(1).square() for _ in range(2000)]
    assert torch.allclose(torch.stack(draws).mean(0), expected, rtol=0.1, atol=0)
    assert float(expected.min()) > 0


@PROBED
def test_probes_are_those_of_their_seed(metric, encoder, full):
    before = reading(metric, encoder, full)
    drawn = [metric.probe(before, torch.Generator().manual_seed(seed)) for seed in (7, 7, 8)]
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2]) == metric.signed
    assert drawn[0].shape == before.shape and bool(torch.isfinite(drawn[0]).all())


@PROBED
def test_probes_of_one_draw_differ_between_samples_and_draws(metric, encoder, full):
    """Prompts have probes of their own: what probes add to the error shows between prompts."""
    if metric.signed:
        return
    before, generator = reading(metric, encoder, full), torch.Generator().manual_seed(0)
    same = before[:1].expand(2, *before.shape[1:])
    first, second = (metric.probe(same, generator) for _ in range(2))
    assert not torch.equal(first[0], first[1]) and not torch.equal(first, second)
