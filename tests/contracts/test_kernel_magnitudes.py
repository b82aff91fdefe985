"""Every real kernel is within its bound at all magnitudes at which the output is a float32 number."""

from __future__ import annotations

import pytest
import torch
from tests.contracts.kernel_cases import (
    PATH_CASES,
    bound_factor,
    compute,
    exact,
    ids,
    inputs_and_layers,
    magnitude,
    skips,
    use,
)
from torch import Tensor

from bitplan.plans.formats.storage import quantize

LARGEST = 1e38  # of sums of magnitudes, so that whatever is summed first is a float32 number
MAGNITUDES = {  # of weights and of inputs, which change from output to output and from row to row
    "huge weights": ((1e38,), (1e-30,)),
    "huge weights and ordinary ones": ((1e38, 1.0, 1e-30), (1e-30, 1e-2, 1e-37)),
    "tiny weights": ((1e-30,), (1e30,)),
    "tiny weights and huge inputs": ((1e-30,), (1e37,)),
    "tiny weights and ordinary ones": ((1e-30, 1.0), (1e30, 1.0)),
    "all": ((1e-30, 1e-15, 1.0, 1e15, 1e30), (1e30, 1e15, 1.0, 1e-15, 1e-30)),
}


def spread(tensor: Tensor, sizes: tuple[float, ...]) -> Tensor:
    """`tensor`, at most 1, its samples or outputs times these in turn."""
    factors = torch.tensor([sizes[i % len(sizes)] for i in range(len(tensor))])
    return tensor / tensor.abs().max() * factors.view(-1, *(1,) * (tensor.dim() - 1))


@pytest.mark.parametrize("name", MAGNITUDES)
@pytest.mark.parametrize(("kernel", "scheme", "path"), PATH_CASES, ids=ids)
def test_products_of_extreme_magnitudes(kernel, scheme, path, name, monkeypatch):
    if kernel.name == "gpu_weight_only" and max(MAGNITUDES[name][1]) > 1e32:
        pytest.skip("its sums of inputs times codes are beyond float32, as it says")
    use(monkeypatch, path)
    for x, weight, _, geometry in inputs_and_layers()[1:9:2]:
        if skips(kernel, scheme, x, geometry) or scheme.inputs.static:
            continue
        x, packed = spread(x, MAGNITUDES[name][1]), quantize(spread(weight, MAGNITUDES[name][0]), scheme.weight)
        out = compute(kernel, x, packed, scheme, None, geometry)
        expected = exact(x, packed, scheme, None, geometry)
        whole = magnitude(x, packed, scheme, None, geometry)
        excess = (out.double() - expected).abs() / (bound_factor(kernel, packed) * whole + 1e-30)
        assert float(excess.nan_to_num(torch.inf)[whole < LARGEST].max()) <= 1, (geometry, tuple(x.shape))
