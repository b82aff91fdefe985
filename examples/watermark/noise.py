"""Computes the noise that a scheme adds to the mark from the weights alone, as a loss column of a profile.

Rounding changes a carrier's weight W to g (W + N), where g W is the projection on W. For random directions u, v with u
orthogonal to W v, u^T N v has mean 0 and power |N|^2 / (O I). In units of W's mean square this is the squared tangent
of the angle between W and the rounded weight. A bit is a mean over C carriers, and a carrier holds R of K bits, so a
carrier adds tan^2 R / (K C^2) to a bit's noise; with L carriers, C = L R / K, this is tan^2 / (L C). Different carriers
have independent directions, so these terms add up exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from examples.watermark.mark import BITS, RANK
from torch import Tensor

from bitplan.planner.profiles.profile import open_profile
from bitplan.plans.formats.storage import dequantize, quantize
from bitplan.plans.scheme import parse_scheme
from bitplan.sensitivity.table import OWN, Measurement

METRIC = "mark"


def dequantized(weight: Tensor, scheme: str) -> Tensor:
    """Returns the weight that a packed layer computes with, in the type of `weight`."""
    return dequantize(quantize(weight.float(), parse_scheme(scheme).weight)).to(weight)


def squared_tangent(weight: Tensor, scheme: str) -> float:
    """Returns the squared tangent of the angle between the weight and its rounded value: noise over mean square."""
    after = dequantized(weight, scheme)
    product = float((weight * after).sum())
    return max(float(weight.square().sum()) * float(after.square().sum()) / product**2 - 1, 0.0)


def noise_of(weight: Tensor, scheme: str, carriers: int) -> float:
    """Returns the noise power that one of `carriers` carriers adds to a bit, averaged over bits and keys."""
    return squared_tangent(weight, scheme) / (carriers * carriers * RANK / BITS)


def add_mark(profile: Path, weights: Mapping[str, Tensor], component: str = "unet") -> None:
    """Adds the column `mark` to the profile: for every layer and scheme, 0 where a layer is not a carrier.

    The values are exact and have a standard error of 0; they need no key and reveal nothing about it. weights: the
    carriers' weights by path in the component.
    """
    with open_profile(profile, "a") as store:
        carriers = {f"{component}.{name}": weight for name, weight in weights.items()}
        column = []
        for layer, scheme in sorted(store.measured()):
            noise = noise_of(carriers[layer], scheme, len(carriers)) if layer in carriers else 0.0
            column.append(Measurement(layer, scheme, METRIC, noise, stderr=0.0, count=1))
        store.write_measurements(column, {METRIC: OWN})
