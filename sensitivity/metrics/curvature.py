"""Derives probes of a loss function from its second derivatives.

A loss that is >= 0, and 0 for equal outputs, is d^T H d / 2 for a small change d, where H is its Hessian at equal
outputs. So v = (H / 2)^(1/2) z with random signs z has E[(v.d)^2] equal to that loss, as `Metric.probe` requires. The
root times z is computed by Lanczos' method (Druskin and Knizhnerman 1989): products of H with vectors, two backward
passes each, span a space in which H is a small tridiagonal matrix T, and v = |z| Q (T / 2)^(1/2) e1. Each sample has a
Hessian of its own, and one product serves the whole batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from bitplan.sensitivity.metrics.base import Loss, Metric, Probe
from bitplan.sensitivity.metrics.signs import random_signs
from bitplan.sensitivity.shortage import is_shortage
from bitplan.sensitivity.table import MeasurementError

PRODUCTS = 40  # largest number of products
CLOSE = 1e-3  # relative change of v by one more product at which it has converged
NEGATIVE = 1e-3  # magnitude of a negative eigenvalue, relative to the largest, that is rounding
BASIS = 1 << 27  # numbers in the bases of the samples that are processed at once
_SIZES = (1e-2, 1e-3, 1e-4)  # sizes of test changes, relative to the reading
_TOLERANCE = 0.3  # deviation from 2 of the power by which a loss grows


@dataclass(frozen=True)
class ProbeChoice:
    """The result of `probe_for`.

    Attributes:
        probe: the probe, or None if the metric must be measured exhaustively.
        how: its origin, or why there is none.
    """

    probe: Probe | None
    how: str


def probe_for(metric: Metric, full: torch.Tensor) -> ProbeChoice:
    """The metric's own probe, else the gradient of a signed metric, else a probe by curvature if the loss is quadratic.

    A metric that is not additive has none. full: a reading in full precision, on which the loss is tried.
    """
    if not metric.additive:
        return ProbeChoice(None, f"{metric.name} is about the whole set of outputs")
    if metric.probe is not None:
        return ProbeChoice(metric.probe, "its own probe")
    try:
        return _derived(metric, full)
    except Exception as error:  # torch or the user's code may raise anything
        if is_shortage(error):
            raise
        return ProbeChoice(None, f"{metric.name} cannot be differentiated: {' '.join(str(error).split())[:200]}")


def _derived(metric: Metric, full: torch.Tensor) -> ProbeChoice:
    name = metric.name
    wide = full.detach().to(torch.promote_types(full.dtype, torch.float32))
    slope = _slope(metric.function, wide)
    if slope is None:
        return ProbeChoice(None, f"{name} passes no gradient back to the outputs")
    if not bool(torch.isfinite(slope).all()):
        return ProbeChoice(None, f"the gradient of {name} at equal outputs is not finite")
    if metric.signed:
        return ProbeChoice(partial(gradient, metric.function), "its gradient")
    if reason := _not_quadratic(metric.function, wide, slope):
        return ProbeChoice(None, f"{name} {reason}")
    curvature(
        metric.function, wide[:1], torch.Generator().manual_seed(0)
    )  # raises for a Hessian with negative eigenvalues
    return ProbeChoice(partial(curvature, metric.function), "its curvature")


def gradient(function: Loss, full: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The gradient of each sample's loss at equal outputs, shaped like `full`."""
    slope = _slope(function, full.detach().to(torch.promote_types(full.dtype, torch.float32)))
    if slope is None:
        raise MeasurementError("the loss passes no gradient back; measure it with --method exhaustive")
    return slope.float()


def curvature(
    function: Loss, full: torch.Tensor, generator: torch.Generator, products: int = PRODUCTS, close: float = CLOSE
) -> torch.Tensor:
    """Random v, shaped like `full`, with E[v v^T] = H / 2 for each sample.

    Raises MeasurementError if H has negative eigenvalues beyond rounding; then the loss is not least at equal outputs.
    """
    wide = full.detach().to(torch.promote_types(full.dtype, torch.float32))
    signs = random_signs(wide, generator).to(wide.dtype)
    room = max(1, BASIS // (wide[0].numel() * (products + 1)))
    roots = [
        _root(_product(function, wide[i : i + room]), signs[i : i + room].flatten(1), products, close)
        for i in range(0, len(wide), room)
    ]
    return torch.cat(roots).view_as(wide).float()


def _slope(function: Loss, full: torch.Tensor) -> torch.Tensor | None:
    with torch.enable_grad():
        variant = full.clone().requires_grad_()
        losses = function(full, variant)
        if not losses.requires_grad:
            return None
        return torch.autograd.grad(losses.sum(), variant, allow_unused=True)[0]


def _product(function: Loss, full: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function that multiplies (N, D) vectors with half of each sample's Hessian. One graph serves all products."""
    with torch.enable_grad():
        variant = full.clone().requires_grad_()
        (slope,) = torch.autograd.grad(function(full, variant).sum(), variant, create_graph=True)

    def product(vectors: torch.Tensor) -> torch.Tensor:
        if not slope.requires_grad:  # a linear loss
            return torch.zeros_like(vectors)
        (curved,) = torch.autograd.grad(
            slope, variant, vectors.view_as(full), retain_graph=True, materialize_grads=True
        )
        return curved.flatten(1).to(vectors.dtype) / 2

    return product


def _root(
    product: Callable[[torch.Tensor], torch.Tensor], start: torch.Tensor, products: int, close: float
) -> torch.Tensor:
    """A^(1/2) start for each sample, (N, D). Each vector is orthogonalised twice against the earlier ones."""
    length = start.double().norm(dim=1)
    basis = [start / length[:, None].to(start.dtype)]
    diagonal: list[torch.Tensor] = []
    off_diagonal: list[torch.Tensor] = []
    last = torch.zeros(len(start), 0, dtype=torch.float64, device=start.device)
    for _ in range(min(products, start.shape[1])):
        along = product(basis[-1])
        diagonal.append(_dot(basis[-1], along))
        weights = _root_of_tridiagonal(diagonal, off_diagonal) * length[:, None]
        padded = torch.nn.functional.pad(last, (0, 1))
        if bool(((weights - padded).norm(dim=1) <= close * weights.norm(dim=1)).all()):
            break
        last = weights
        for _ in range(2):
            for vector in basis:
                along = along - _dot(vector, along)[:, None].to(along.dtype) * vector
        norm = along.double().norm(dim=1)
        norm = torch.where(
            norm > 1e-6 * torch.stack(diagonal).abs().amax(0), norm, 0
        )  # 0 for a sample whose space is complete
        off_diagonal.append(norm)
        basis.append(along * torch.where(norm > 0, 1 / norm, 0)[:, None].to(along.dtype))
    return torch.stack([w[:, None].to(start.dtype) * q for w, q in zip(weights.T, basis, strict=False)]).sum(0)


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a.double() * b.double()).sum(1)


def _root_of_tridiagonal(diagonal: list[torch.Tensor], off_diagonal: list[torch.Tensor]) -> torch.Tensor:
    """T^(1/2) e1 of each sample, (N, k) float64."""
    small = torch.diag_embed(torch.stack(diagonal, 1))
    if off_diagonal:
        off = torch.diag_embed(torch.stack(off_diagonal, 1), offset=1)
        small = small + off + off.mT
    values, vectors = torch.linalg.eigh(small)
    least, most = values.amin(1), values.abs().amax(1)
    if not bool((least >= -NEGATIVE * most).all()):
        raise MeasurementError(
            f"its curvature is negative at equal outputs (eigenvalues from {float(least.min()):.3g} to "
            f"{float(most.max()):.3g}); measure it with --method exhaustive"
        )
    return (vectors * values.clamp_min(0).sqrt()[:, None] * vectors[:, :1]).sum(-1)


def _not_quadratic(function: Loss, full: torch.Tensor, slope: torch.Tensor) -> str | None:
    """Why the loss is not quadratic in small changes, or None: its slope, or its growth when a change is doubled."""
    noise = torch.randn(full.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64, device="cpu")
    noise = (noise.to(full.device) * full.double().square().mean().sqrt()).to(full.dtype)
    powers = []
    for size in _SIZES:
        with torch.no_grad():
            once, twice = (float(function(full, full + factor * size * noise).sum()) for factor in (1, 2))
        if once == 0 or twice / once <= 0:
            continue
        powers.append(math.log2(twice / once))
        linear = abs(float((slope.double() * size * noise.double()).sum()))
        if abs(powers[-1] - 2) <= _TOLERANCE and linear <= 0.1 * abs(once):
            return None
    if not powers:
        return "does not change with small changes of the outputs"
    nearest = min(powers, key=lambda power: abs(power - 2))
    return f"grows like small changes to the power {nearest:.2g}, not 2"
