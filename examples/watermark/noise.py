"""The noise that a scheme adds to the mark, from weights alone, as a loss column of a profile.

Rounding turns a carrier's weight W into g (W + N), g W being its projection on W. Along directions u, v that the key
drew evenly, with u orthogonal to W v, u^T N v has mean 0 and power |N|^2 / (O I): in units of W's mean square, the
squared tangent of the angle between the weight and what it is rounded to. A bit is the mean over C carriers, and a
carrier holds R of K bits, so that a carrier adds tan^2 R / (K C^2) to a bit's noise, C = L R / K with L carriers:
tan^2 / (L C). Errors of different carriers meet different directions, so that these add up, exactly.
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


def rounded(weight: Tensor, scheme: str) -> Tensor:
    """What a packed layer computes with, like `weight`."""
    return dequantize(quantize(weight.float(), parse_scheme(scheme).weight)).to(weight)


def turned(weight: Tensor, scheme: str) -> float:
    """Squared tangent of the angle by which the scheme turns the weight: noise in units of its mean square."""
    after = rounded(weight, scheme)
    product = float((weight * after).sum())
    return max(float(weight.square().sum()) * float(after.square().sum()) / product**2 - 1, 0.0)


def noise_of(weight: Tensor, scheme: str, carriers: int) -> float:
    """Noise power that one of so many carriers adds to a bit's statistic, the mean over bits and keys."""
    return turned(weight, scheme) / (carriers * carriers * RANK / BITS)


def add_mark(profile: Path, weights: Mapping[str, Tensor], component: str = "unet") -> None:
    """Give the profile the column `mark`: for every layer and scheme, 0 where a layer carries nothing.

    weights: of the carriers, by their path in the component. Exact, so without a standard error; needs no key, and
    tells nothing of it.
    """
    with open_profile(profile, "a") as store:
        held = {f"{component}.{name}": weight for name, weight in weights.items()}
        column = []
        for layer, scheme in sorted(store.measured()):
            noise = noise_of(held[layer], scheme, len(held)) if layer in held else 0.0
            column.append(Measurement(layer, scheme, METRIC, noise, stderr=0.0, count=1))
        store.write_measurements(column, {METRIC: OWN})
