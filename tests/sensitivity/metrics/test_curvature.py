"""Probes by curvature against dense Hessians, finite differences, written probes' losses, and what must be refused."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from bitplan.sensitivity.metrics import METRICS, Metric
from bitplan.sensitivity.metrics.curvature import _product, curvature, probe_for
from bitplan.sensitivity.metrics.signs import random_signs
from bitplan.sensitivity.table import MeasurementError

torch.set_num_threads(1)
SAMPLES = 3


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sample(name: str) -> Tensor:
    """A small full-precision reading of the metric, float64."""
    shape = {"dssim": (3, 13, 12), "embed_drift": (16,), "spectral": (1, 300)}.get(name, (2, 5, 5))
    drawn = torch.rand(SAMPLES, *shape, generator=generator(3), dtype=torch.float64)
    if name == "embed_drift":
        return torch.nn.functional.normalize(drawn - 0.5, dim=-1)
    return drawn - 0.5 if name == "spectral" else drawn


NAMES = pytest.mark.parametrize("name", ["nsr", "dssim", "embed_drift", "spectral", "pixcorr"])


def bare(name: str) -> Metric:
    return dataclasses.replace(METRICS[name], probe=None)


@NAMES
def test_is_the_root_of_half_the_hessian_times_random_signs(name: str) -> None:
    full = sample(name)
    found = curvature(METRICS[name].function, full, generator(), products=60)
    signs = random_signs(full, generator()).double()
    for i in range(SAMPLES if full[0].numel() < 200 else 1):
        one = full[i : i + 1]
        hessian = torch.autograd.functional.hessian(lambda x, one=one: METRICS[name].function(one, x).sum(), one)
        values, vectors = torch.linalg.eigh(hessian.view(one.numel(), -1) / 2)
        dense = vectors @ (values.clamp_min(0).sqrt() * (vectors.T @ signs[i].flatten()))
        assert (found[i].flatten() - dense).norm() < 0.02 * dense.norm()


@NAMES
def test_products_are_those_of_finite_differences(name: str) -> None:
    full, step = sample(name), 1e-5
    along = torch.randn(full.shape, generator=generator(1), dtype=torch.float64)

    def slope(variant: Tensor) -> Tensor:
        variant = variant.clone().requires_grad_()
        return torch.autograd.grad(METRICS[name].function(full, variant).sum(), variant)[0]

    expected = (slope(full + step * along) - slope(full - step * along)) / (4 * step)
    found = _product(METRICS[name].function, full)(along.flatten(1)).view_as(full)
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-6 * float(expected.abs().max()))


@NAMES
@pytest.mark.parametrize("way", ["curvature", "written"])
def test_tells_the_loss_of_a_small_change_on_average(name: str, way: str) -> None:
    full, draws = sample(name), {"dssim": 40, "spectral": 100}.get(name, 1000)
    change = 1e-4 * torch.randn(full.shape, generator=generator(2), dtype=torch.float64)
    expected = METRICS[name].function(full, full + change)
    found = probe_for(bare(name) if way == "curvature" else METRICS[name], full)
    assert found.how == {"curvature": "its curvature", "written": "its own probe"}[way]
    its = generator(1)
    told = torch.stack([(found.probe(full, its).double() * change).flatten(1).sum(1).square() for _ in range(draws)])
    spread = (2 / (draws * SAMPLES)) ** 0.5
    assert float((told.mean(0) / expected).mean()) == pytest.approx(1, abs=4 * spread)


def test_probes_are_those_of_their_seed_and_differ_between_samples() -> None:
    full = sample("pixcorr")[:1].expand(2, -1, -1, -1)
    a, b, c = (curvature(METRICS["pixcorr"].function, full, generator(seed)) for seed in (7, 7, 8))
    assert torch.equal(a, b) and not torch.equal(a, c) and not torch.equal(a[0], a[1])
    assert a.dtype == torch.float32 and a.shape == full.shape


def test_half_precision_readings_are_probed_in_float() -> None:
    full = sample("pixcorr").to(torch.bfloat16)
    found = curvature(METRICS["pixcorr"].function, full, generator())
    exact = curvature(METRICS["pixcorr"].function, full.double(), generator())
    assert torch.allclose(found, exact, rtol=1e-3, atol=1e-5)


def test_a_loss_that_sees_few_directions_of_each_sample() -> None:
    """The space of the products is whole after two, at another number for each sample."""

    def few(full: Tensor, variant: Tensor) -> Tensor:
        change = (variant - full).flatten(1)
        return change[:, 0].square() + 4 * change[:, 1].square() * torch.arange(len(full))

    full = torch.rand(2, 6)
    found = curvature(few, full, generator())
    signs = random_signs(full, generator())
    assert torch.allclose(found[:, 0], signs[:, 0], atol=1e-3) and float(found[:, 2:].abs().max()) < 1e-5
    assert torch.allclose(found[:, 1], signs[:, 1] * torch.tensor([0.0, 2.0]), atol=1e-3)


def plain(function) -> Metric:
    return Metric("mine", "own", "output", "", function)


REFUSED = {
    "grows like small changes to the power 1": lambda a, b: (a - b).abs().mean((1, 2, 3)),
    "power 4": lambda a, b: (a - b).pow(4).mean((1, 2, 3)),
    "gradient of mine at equal outputs is not finite": lambda a, b: (a - b).square().mean((1, 2, 3)).sqrt(),
    "does not change with small changes": lambda a, b: ((a > 2) != (b > 2)).double().mean((1, 2, 3)) + 0 * b.sum(),
    "passes no gradient back": lambda a, b: torch.from_numpy(((a - b).detach().numpy() ** 2).mean((1, 2, 3))),
    "curvature is negative": lambda a, b: (a - b).square().sum((1, 2, 3)) - 5 * (a - b).square()[:, 0, 0, 0],
    "cannot be differentiated: of its own": lambda a, b: (_ for _ in ()).throw(KeyError("of its own")),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_curvature_cannot_tell_is_refused_with_the_reason(reason: str) -> None:
    found = probe_for(plain(REFUSED[reason]), sample("pixcorr"))
    assert found.probe is None and reason in found.how.replace("'", "")


def test_a_loss_without_an_even_start_is_refused() -> None:
    found = probe_for(plain(lambda a, b: (b - a).exp().mean((1, 2, 3)) - 1), sample("pixcorr"))
    assert found.probe is None and "power 1" in found.how


def test_a_signed_one_has_its_gradient() -> None:
    full = sample("pixcorr")
    metric = dataclasses.replace(plain(lambda a, b: (a * (b - a)).flatten(1).sum(1)), signed=True)
    found = probe_for(metric, full)
    assert found.how == "its gradient"
    assert torch.allclose(found.probe(full, generator()), full.float())


def test_whole_sets_have_none() -> None:
    assert probe_for(METRICS["frechet"], sample("embed_drift")).probe is None


def test_a_curvature_of_both_signs_is_an_error_when_drawn() -> None:
    with pytest.raises(MeasurementError, match="curvature is negative"):
        curvature(REFUSED["curvature is negative"], sample("pixcorr"), generator())
