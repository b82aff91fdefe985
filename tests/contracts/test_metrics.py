"""What every metric of the table promises, on real readings of small random runs."""

from __future__ import annotations

import pytest
import torch
from tests.docs.metrics import PAGE, metrics_table
from tests.perceptual import stand_in
from transformers import CLIPConfig, CLIPModel

from bitplan.sensitivity.metrics import (
    METRICS,
    OUTPUTS,
    TEXT_TO_IMAGE,
    Metric,
    default_metrics,
    metric_named,
    perceptual,
)
from bitplan.sensitivity.metrics.learned import Encoder, clip_encoder
from bitplan.sensitivity.runs.outcome import READINGS, Outcome, clean, read
from bitplan.sensitivity.table import FAMILIES, MeasurementError

SAMPLES = 6
FULL: list[torch.Tensor] = []  # the images of `full`
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
    FULL[:] = [images]
    return Outcome((torch.randn(SAMPLES, 4, 8, 8, generator=generator),), images)


def noisy(outcome: Outcome, noise: float, seed: int = 2) -> Outcome:
    """The outcome with Gaussian noise of standard deviation `noise`."""
    generator = torch.Generator().manual_seed(seed)
    changed = [x + noise * torch.randn(x.shape, generator=generator) for x in (*outcome.denoised, outcome.outputs)]
    return clean(Outcome((changed[0],), changed[1]))[0]


def reading(metric: Metric, encoder: Encoder, outcome: Outcome, rows: slice = slice(None)) -> torch.Tensor:
    """What the metric reads of an outcome; each full-precision image is its own prompt, so that any change can only
    lose similarity. Sounds and videos are the images' numbers in other shapes."""
    if metric.reads == "output" and "images" not in metric.outputs:
        some = outcome.outputs[rows]
        return some.flatten(2) * 2 - 1 if "audio" in metric.outputs else some.unflatten(2, (4, 8)).transpose(1, 2)
    images, denoised = outcome.outputs[rows], outcome.denoised[0][rows]
    with torch.no_grad():
        texts = encoder.image(FULL[0][rows])
        found = read(Outcome((denoised,), images), [metric.reads], encoder, texts)[metric.reads]
    return found if isinstance(found, torch.Tensor) else found[0]


def loss(metric: Metric, encoder: Encoder, full: Outcome, variant: Outcome, rows: slice = slice(None)) -> torch.Tensor:
    return metric.function(*(reading(metric, encoder, outcome, rows) for outcome in (full, variant)))


@pytest.fixture(scope="module", autouse=True)
def _stand_in_for_lpips():
    """A small network with random weights in the place of the package's."""
    torch.manual_seed(5)
    with pytest.MonkeyPatch.context() as patch:
        network = stand_in()
        patch.setattr(perceptual, "package_network", lambda: network)
        yield


@EVERY
def test_is_filed(metric):
    assert metric.family in FAMILIES and metric.reads in READINGS and metric.says
    assert METRICS[metric.name] is metric
    assert set(metric.default) <= set(metric.outputs) <= set(OUTPUTS) and metric.outputs
    assert metric.additive or not metric.default


@pytest.mark.parametrize(
    ("output", "texts", "encoder", "names"),
    [
        ("images", True, True, "nsr dssim clip_drop embed_drift"),
        ("images", False, True, "nsr dssim embed_drift"),
        ("images", True, False, "nsr dssim"),
        ("video", True, True, "nsr dssim clip_drop embed_drift"),
        ("audio", True, False, "nsr output_nsr spectral"),
        ("array", False, False, "nsr output_nsr"),
    ],
)
def test_defaults(output, texts, encoder, names):
    assert " ".join(metric.name for metric in default_metrics(output, texts, encoder)) == names


def test_text_to_image_is_the_table_s_start():
    assert list(TEXT_TO_IMAGE) == list(METRICS)[: len(TEXT_TO_IMAGE)]  # the place in the table seeds the probes


def test_no_kind_of_output():
    with pytest.raises(MeasurementError, match="images, video, audio, array, not 'pictures'"):
        default_metrics("pictures", True, True)


def test_by_name():
    assert metric_named("spectral") is METRICS["spectral"]
    with pytest.raises(MeasurementError, match="'spectrl'; did you mean 'spectral'"):
        metric_named("spectrl")
    with pytest.raises(MeasurementError, match=r"\(metrics: nsr, dssim"):
        metric_named("zzz")


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
    a, b = (reading(metric, encoder, x) for x in (full, noisy(full, 0.2)))
    assert torch.allclose(metric.function(a, b), metric.function(b, a), rtol=1e-9, atol=0) == metric.symmetric


@EVERY
def test_samples_are_independent_of_their_batch(metric, encoder, full):
    variant = noisy(full, 0.1)
    whole = loss(metric, encoder, full, variant)
    alone = torch.cat([loss(metric, encoder, full, variant, slice(i, i + 1)) for i in range(SAMPLES)])
    assert torch.allclose(alone, whole, rtol=1e-4, atol=1e-7) == metric.additive


@EVERY
def test_half_precision_readings_are_compared_in_double(metric, encoder, full):
    """Rounding the inputs to float16 must not be made worse by squaring or subtracting in float16."""
    a, b = (reading(metric, encoder, x).half() for x in (full, noisy(full, 0.1)))
    half, double = metric.function(a, b), metric.function(a.double(), b.double())
    assert torch.allclose(half, double, rtol=1e-12, atol=1e-15)


@EVERY
def test_frames_are_averaged(metric, encoder, full):
    """A video of one frame twice has the loss of the frame; frames of their own have the mean."""
    if not {"images", "video"} <= set(metric.outputs) or metric.reads in ("denoised", "similarity"):
        return
    a, b = (reading(metric, encoder, x) for x in (full, noisy(full, 0.1)))
    single = metric.function(a, b)
    twice = metric.function(*(x[:, None].expand(-1, 2, *x.shape[1:]) for x in (a, b)))
    assert torch.allclose(twice, single, rtol=1e-9)
    if metric.name in ("dssim", "embed_drift", "lpips"):
        both = metric.function(*(x.unflatten(0, (SAMPLES // 2, 2)) for x in (a, b)))
        assert torch.allclose(both, single.view(-1, 2).mean(1), rtol=1e-9)


PROBED = pytest.mark.parametrize("metric", [m for m in METRICS.values() if m.probe], ids=lambda m: m.name)


def small_change(metric: Metric, before: torch.Tensor) -> torch.Tensor:
    """A change of 1 part in 1000 that the reading can have: unit embeddings stay unit; images change smoothly."""
    drawn = torch.randn(before.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    if metric.reads == "embeds":
        return torch.nn.functional.normalize(before + 1e-3 * drawn, dim=-1) - before
    if metric.reads in ("images", "output") and before.dim() == 4:
        drawn = torch.nn.functional.avg_pool2d(drawn, 5, stride=1, padding=2) + 0.5  # contrast and brightness alike
    return 1e-3 * drawn


@PROBED
def test_probes_tell_the_loss_of_a_small_change(metric, encoder, full):
    """To second order on average over draws, and a signed one to first order at once."""
    before = reading(metric, encoder, full).double()
    change = small_change(metric, before)
    expected = metric.function(before, before + change)
    generator = torch.Generator().manual_seed(0)
    if metric.signed:
        found = (metric.probe(before, generator) * change).reshape(len(before), -1).sum(1)
        assert torch.allclose(found, expected, rtol=1e-3, atol=1e-9)
        return
    count = 300 if metric.name in ("spectral", "lpips") else 2000  # slow ones
    draws = [(metric.probe(before, generator) * change).flatten(1).sum(1).square() for _ in range(count)]
    assert torch.allclose(torch.stack(draws).mean(0), expected, rtol=4 * (2 / count) ** 0.5, atol=0)  # 4 deviations
    assert float(expected.min()) > 0


@PROBED
def test_probes_are_those_of_their_seed(metric, encoder, full):
    before = reading(metric, encoder, full).double()
    drawn = [metric.probe(before, torch.Generator().manual_seed(seed)) for seed in (7, 7, 8)]
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2]) == metric.signed
    assert drawn[0].shape == before.shape and bool(torch.isfinite(drawn[0]).all())


@PROBED
def test_probes_of_one_draw_differ_between_samples_and_draws(metric, encoder, full):
    """Prompts have probes of their own: what probes add to the error shows between prompts."""
    if metric.signed:
        return
    before, generator = reading(metric, encoder, full).double(), torch.Generator().manual_seed(0)
    same = before[:1].expand(2, *before.shape[1:])
    first, second = (metric.probe(same, generator) for _ in range(2))
    assert not torch.equal(first[0], first[1]) and not torch.equal(first, second)


def test_the_page_of_the_metrics_shows_the_table():
    assert metrics_table() in PAGE.read_text("utf-8"), "run `python -m tests.docs.metrics`"
