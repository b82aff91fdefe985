"""The watermark example: what the key writes into weights and reads, the noise of schemes, the formula, the cap."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from examples.watermark import errors, noise
from examples.watermark.make import fuse, write_adapter
from examples.watermark.mark import (
    BITS,
    KEY,
    RANK,
    STRENGTH,
    Key,
    adapter_of,
    carrier_weights,
    carriers_of,
    count_matching,
    marked_weights,
    message_of,
    statistics_of,
)
from safetensors.torch import load_file
from scipy.stats import binomtest, kurtosis

import bitplan
from bitplan.planner.profiles.profile import open_profile
from bitplan.plans.plan import Plan
from bitplan.sensitivity.table import FAMILIES
from tests import tiny

SHAPES = ((48, 40), (64, 48), (40, 64), (96, 32))
STRONG = 10 * STRENGTH  # the carriers here are a few and small


@pytest.fixture(scope="module")
def hosts() -> dict[str, torch.Tensor]:
    """16 carriers whose rows and columns are correlated and of many sizes, so that hosts would speak if they could."""
    generator = torch.Generator().manual_seed(3)
    found = {}
    for i in range(16):
        outputs, inputs = SHAPES[i % len(SHAPES)]
        weight = torch.randn(outputs, inputs, generator=generator, dtype=torch.float64)
        found[f"block.{i}"] = (0.05 + 0.01 * i) * (weight + torch.randn(inputs, generator=generator) * 2)
    return found


def stored(weights: dict[str, torch.Tensor], scheme: str) -> dict[str, torch.Tensor]:
    return {name: noise.dequantized(weight, scheme) for name, weight in weights.items()}


def noise_sum(weights: dict[str, torch.Tensor], scheme: str) -> float:
    return sum(noise.noise_of(weight, scheme, len(weights)) for weight in weights.values())


def test_a_host_says_nothing_and_every_bit_has_the_same_margin(hosts):
    for seed in range(3):
        carriers, message = carriers_of(hosts, Key(seed, seed)), message_of(seed)
        assert statistics_of(hosts, carriers).abs().max() < 1e-12
        margins = statistics_of(marked_weights(carriers, message), carriers) * message
        assert torch.allclose(margins, torch.full_like(margins, STRENGTH), atol=1e-6)
        assert count_matching(marked_weights(carriers, message), carriers, message) == BITS


def test_bits_are_dealt_out_evenly_and_by_the_key(hosts):
    first, second = (carriers_of(hosts, Key(seed)) for seed in (0, 1))
    counts = torch.bincount(torch.cat([one.bits for one in first.values()]), minlength=BITS)
    assert counts.tolist() == [len(hosts) * RANK // BITS] * BITS
    assert all(len(one.bits.unique()) == RANK for one in first.values())
    assert any(not torch.equal(first[name].bits, second[name].bits) for name in hosts)
    again = carriers_of(hosts, Key(0))
    assert all(torch.equal(first[name].rows, again[name].rows) for name in hosts)


def test_the_adapter_is_of_low_rank_and_hardly_changes_a_weight(hosts):
    carriers = carriers_of(hosts)
    changed = marked_weights(carriers, message_of(1))
    for name, host in hosts.items():
        change = changed[name] - host
        assert torch.linalg.matrix_rank(change, rtol=1e-4) == RANK
        assert change.norm() == pytest.approx(STRENGTH * RANK**0.5 * carriers[name].scale, rel=1e-5)
    assert adapter_of(carriers, message_of(1)).keys() == {f"{n}.lora_{x}.weight" for n in hosts for x in "AB"}


def test_another_key_and_an_unmarked_model_read_chance(hosts):
    right = 0
    for seed in range(20):
        carriers, message = carriers_of(hosts, Key(seed)), message_of(seed + 100)
        right += count_matching(stored(hosts, "w3ma8"), carriers, message)
        right += count_matching(marked_weights(carriers_of(hosts, Key(seed + 50)), message), carriers, message)
    assert 0.45 < right / (40 * BITS) < 0.55


@pytest.mark.parametrize("scheme", ["w2ma8", "w3g32ma8", "w4ma8"])
def test_the_noise_predicted_is_that_over_keys_and_gaussian(hosts, scheme):
    changes, wrong = [], 0.0
    for seed in range(16):
        carriers, message = carriers_of(hosts, Key(seed)), message_of(seed + 100)
        found = statistics_of(stored(marked_weights(carriers, message, STRONG), scheme), carriers) * message
        changes.append(found - STRONG)
        wrong += float((found < 0).double().mean()) / 16
    measured = torch.cat(changes)
    power = noise_sum(hosts, scheme)
    assert float(measured.square().mean()) == pytest.approx(power, rel=0.2)
    assert abs(float(measured.mean())) < 0.15 * STRONG
    assert abs(kurtosis(measured)) < 0.5
    assert wrong == pytest.approx(errors.error_rate([STRONG], power), abs=0.05)


def test_more_bits_turn_a_weight_less(hosts):
    weight = hosts["block.1"]
    assert noise.squared_tangent(weight, "w2ma8") == pytest.approx(_tangent(weight, noise.dequantized(weight, "w2ma8")))
    found = [noise.squared_tangent(weight, scheme) for scheme in ("w2ma8", "w3ma8", "w4ma8", "w8a8", "keep")]
    assert found == sorted(found, reverse=True) and found[-1] < 1e-12 < found[-2]


def _tangent(before: torch.Tensor, after: torch.Tensor) -> float:
    """By the residual of least squares."""
    along = before * (before * after).sum() / before.square().sum()
    return float((after - along).square().sum() / along.square().sum())


def test_error_rate_is_what_gaussian_noise_does():
    generator = torch.Generator().manual_seed(1)
    margins = 0.2 + 0.1 * torch.randn(400, generator=generator, dtype=torch.float64)
    for power in (0.005, 0.05, 0.5):
        drawn = margins + power**0.5 * torch.randn(2000, 400, generator=generator, dtype=torch.float64)
        measured = float((drawn < 0).double().mean())
        assert errors.error_rate(margins.tolist(), power) == pytest.approx(measured, abs=0.002)
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
        for right in range(bits + 1):
            expected = binomtest(right, bits, 0.5, alternative="greater").pvalue
            assert errors.chance(right, bits) == pytest.approx(expected, rel=1e-12)
    counted = sum(sum(coins) >= 4 for coins in product((0, 1), repeat=6))
    assert Fraction(errors.chance(4, 6)) == Fraction(counted, 64)


@pytest.fixture(scope="module")
def marked_pipe(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, torch.Tensor], Path]:
    """A tiny pipeline with the adapter fused, its hosts, and the adapter's folder."""
    folder, pipe = tmp_path_factory.mktemp("adapter"), tiny.build_pipeline()
    hosts = carrier_weights(pipe.unet)
    write_adapter(pipe, folder)
    return fuse(pipe, folder), hosts, folder


def test_diffusers_loads_the_adapter_and_fuses_what_was_meant(marked_pipe):
    pipe, hosts, folder = marked_pipe
    expected = marked_weights(carriers_of(hosts), message_of(KEY.message))
    for name, weight in carrier_weights(pipe.unet).items():
        assert torch.allclose(weight, expected[name], atol=1e-6) and not torch.equal(weight, hosts[name])
    assert count_matching(carrier_weights(pipe.unet), carriers_of(hosts), message_of(KEY.message)) == BITS
    tensors = load_file(next(folder.glob("*.safetensors")))
    assert len(tensors) == 2 * len(hosts)
    assert all(name.startswith("unet.") and min(tensor.shape) == RANK for name, tensor in tensors.items())


def margins_after(plan: Plan, hosts: dict[str, torch.Tensor], strength: float) -> torch.Tensor:
    """(keys, K): margins that the plan's schemes leave."""
    found = []
    for seed in range(16):
        carriers, message = carriers_of(hosts, Key(seed)), message_of(seed + 100)
        weights = marked_weights(carriers, message, strength)
        after = {name: noise.dequantized(weight, plan.schemes[f"unet.{name}"]) for name, weight in weights.items()}
        found.append(statistics_of(after, carriers) * message)
    return torch.stack(found)


def test_a_cap_keeps_the_mark_at_the_same_bytes(marked_pipe, tmp_path):
    """Marks of other keys are made as strong as the free plan's noise, the root of its mean power."""
    pipe, hosts, _ = marked_pipe
    folder, file, out = tmp_path / "marked", tmp_path / "t.profile", tmp_path / "p.plan.yaml"
    pipe.save_pretrained(folder)
    schemes = ("w8a8", "w4ma8", "w2ma8")
    bitplan.profile(
        str(folder), file, prompts=tiny.PROMPTS, schemes=schemes, steps=1, timesteps=1, probes=1, checks=0,
        clip=str(tiny.save_clip(tmp_path / "clip")),
    )  # fmt: skip
    noise.add_mark(file, carrier_weights(pipe.unet))
    with open_profile(file) as store:
        assert store.families()[noise.METRIC] not in FAMILIES
        column = {(m.layer, m.scheme): m.mean for m in store.measurements() if m.metric == noise.METRIC}
        assert column.keys() == store.measured()
    assert {layer for (layer, _), loss in column.items() if loss} == {f"unet.{name}" for name in hosts}
    free = bitplan.solve(file, out, memory="16%")
    most = free.predictions["total"]["mark"] / 8
    capped = bitplan.solve(file, out, memory="16%", caps={"mark": repr(most)})
    assert capped.predictions["total"]["mark"] <= most
    assert capped.predictions["total"]["bytes"] <= 1.02 * free.predictions["total"]["bytes"]
    strength = (8 * most) ** 0.5
    left = [margins_after(plan, hosts, strength) for plan in (free, capped)]
    for plan, margins in zip((free, capped), left, strict=True):
        measured = float((margins - strength).square().mean())
        assert measured == pytest.approx(plan.predictions["total"]["mark"], rel=0.3)
    wrong = [float((margins < 0).double().mean()) for margins in left]
    assert wrong[0] > 0.05 > 0.01 > wrong[1]
    before = carrier_weights(pipe.unet)
    bitplan.apply(pipe, capped)
    expected = {name: noise.dequantized(weight, capped.schemes[f"unet.{name}"]) for name, weight in before.items()}
    after = carrier_weights(pipe.unet)
    bitplan.restore(pipe)
    assert all(torch.allclose(after[name], expected[name], atol=1e-6) for name in expected)
