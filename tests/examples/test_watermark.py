"""The watermark example: its decoder, its metric, its formula, and the adapter that carries the mark."""

from __future__ import annotations

import math
from fractions import Fraction
from inspect import signature
from itertools import product

import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import binomtest

import planner
from examples.watermark import errors, mark
from examples.watermark.run import ADAPTER, BITS, METRIC, WRONG, marked_pipeline, paint, read
from planner.prompts import built_in_prompts, held_out_prompts
from planner.references import load_reference
from planner.scenes import CLIP_FOLDER
from sensitivity.table import FAMILIES


def flat(count: int) -> torch.Tensor:
    """Pictures of one colour each."""
    return torch.rand(count, 3, 1, 1, generator=torch.Generator().manual_seed(5)).expand(count, 3, 64, 64) * 0.6 + 0.2


def written(images: torch.Tensor, strength: float, message: torch.Tensor) -> torch.Tensor:
    """The message added to pictures."""
    return images + strength * torch.einsum("k,kchw->chw", message, mark.patterns_of(mark.KEY.patterns))


def test_patterns_are_orthonormal_without_mean_and_those_of_their_seed():
    patterns = mark.patterns_of(3)
    rows = patterns.double().flatten(1)
    assert torch.allclose(rows @ rows.T, torch.eye(BITS, dtype=torch.float64), atol=1e-5)
    assert patterns.mean((2, 3)).abs().max() < 1e-6
    assert torch.equal(patterns, mark.patterns_of.__wrapped__(3))
    other = mark.patterns_of(4).double().flatten(1)
    assert (rows @ other.T).abs().max() < 0.9


def test_any_message_written_into_pictures_is_read():
    for seed in range(4):
        message = mark.message_of(100 + seed)
        margins = mark.margins_of(written(flat(5), 0.2, message), mark.Key(mark.KEY.patterns, 100 + seed))
        assert margins.shape == (5, BITS) and (margins > 0.1).all()


def test_a_thing_in_front_says_nothing():
    images = flat(3)
    images[:, :, 20:40, 10:30] = (images[:, :, 20:40, 10:30] + 0.5) % 1
    assert mark.statistics_of(images).abs().max() < 1e-3
    margins = mark.margins_of(written(images, 0.2, mark.message_of(mark.KEY.message)))
    assert margins.mean() > 0.1


def test_other_keys_read_chance():
    images = written(flat(3), 0.2, mark.message_of(mark.KEY.message))
    keys = [mark.Key(mark.KEY.patterns + 1 + i, mark.KEY.message) for i in range(3)]
    agreeing = sum(int((mark.margins_of(images, key) > 0)[0].sum()) for key in keys)
    assert 0.25 < agreeing / (3 * BITS) < 0.75


def test_a_probe_squared_is_the_metric_on_average():
    generator = torch.Generator().manual_seed(0)
    full = written(flat(2), 0.2, mark.message_of(mark.KEY.message))
    change = 1e-3 * torch.randn(full.shape, generator=generator)
    expected = mark.mark_noise(full, full + change)
    draws = [(mark.mark_probe(full, generator) * change).flatten(1).sum(1).square() for _ in range(800)]
    assert torch.allclose(torch.stack(draws).mean(0).double(), expected, rtol=0.15)
    assert torch.equal(mark.mark_noise(full, full), torch.zeros(2, dtype=torch.float64))


def test_the_metric_is_a_column_of_its_own():
    assert load_reference(METRIC) is mark.MARK
    assert mark.MARK.family not in FAMILIES


def test_error_rate_is_what_gaussian_noise_does():
    generator = torch.Generator().manual_seed(1)
    margins = 0.2 + 0.1 * torch.randn(400, generator=generator, dtype=torch.float64)
    for noise in (0.005, 0.05, 0.5):
        drawn = margins + noise**0.5 * torch.randn(2000, 400, generator=generator, dtype=torch.float64)
        measured = float((drawn < 0).double().mean())
        assert errors.error_rate(margins.tolist(), noise) == pytest.approx(measured, abs=0.002)
    assert errors.error_rate([1.0, -1.0, 2.0], 0.0) == pytest.approx(1 / 3)


def test_upper_tail():
    assert [errors.upper_tail(x) for x in (0.0, 1.6448536269514722, -1.6448536269514722)] == pytest.approx(
        [0.5, 0.05, 0.95]
    )


def test_a_cap_is_where_its_rate_is_reached():
    margins = [0.1, 0.2, 0.3, 0.25]
    for rate in (0.01, 0.1, 0.3):
        cap = errors.cap_for(margins, rate)
        assert errors.error_rate(margins, cap) <= rate < errors.error_rate(margins, cap * 1.001)
    for bad in (0.0, 0.5, 0.9):
        with pytest.raises(ValueError, match="0.5"):
            errors.cap_for(margins, bad)
    with pytest.raises(ValueError, match="0.25"):
        errors.cap_for([*margins[:3], -0.1], 0.2)


def test_chance_is_the_exact_binomial_test():
    for bits in (1, 5, 32):
        for agreeing in range(bits + 1):
            expected = binomtest(agreeing, bits, 0.5, alternative="greater").pvalue
            assert errors.chance(agreeing, bits) == pytest.approx(expected, rel=1e-12)
    counted = sum(sum(coins) >= 4 for coins in product((0, 1), repeat=6))
    assert Fraction(errors.chance(4, 6)) == Fraction(counted, 64)


def test_needed_is_the_first_that_is_significant():
    least = errors.needed(32, 1e-3)
    assert errors.chance(least, 32) <= 1e-3 < errors.chance(least - 1, 32)
    assert errors.needed(4, 1e-3) == 5
    assert math.isclose(errors.chance(0, 32), 1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("marked")


@pytest.fixture(scope="module")
def pipe(folder):
    return marked_pipeline(folder)


def test_the_adapter_marks_pictures(pipe):
    images = paint(pipe, held_out_prompts(4), seed=3000)
    found = read(images, images)
    assert found.p < 1e-4 and found.errors < 0.25
    assert read(images, images, WRONG).p > 1e-3


def test_the_adapter_is_small_and_low_rank():
    weights = load_file(next(ADAPTER.glob("*.safetensors")))
    assert sum(file.stat().st_size for file in ADAPTER.iterdir()) < 300_000
    assert all(name.startswith("unet.") and ".lora" in name for name in weights)
    assert max(min(x.flatten(1).shape) for x in weights.values()) <= 8


@pytest.mark.skipif("metrics" not in signature(planner.profile).parameters, reason="profile takes no metrics")
def test_a_cap_bounds_the_noise_that_is_predicted(tmp_path, folder, pipe):
    file, plan = tmp_path / "p.profile", tmp_path / "p.plan.yaml"
    planner.profile(
        str(folder), file, prompts=built_in_prompts(True, 1), steps=2, probes=1, checks=0, timesteps=1,
        schemes=("w8a8", "w2ma8"), clip=str(CLIP_FOLDER), metrics=(METRIC,),
    )  # fmt: skip
    free = planner.solve(file, plan, memory="15%").predictions["total"]
    capped = planner.solve(file, plan, memory="15%", caps={"mark": repr(free["mark"] / 2)}).predictions["total"]
    assert capped["mark"] <= free["mark"] / 2 and capped["bytes"] <= 1.01 * free["bytes"]
    assert capped["quality"] + capped["alignment"] >= free["quality"] + free["alignment"]
