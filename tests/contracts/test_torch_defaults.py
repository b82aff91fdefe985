"""Results do not depend on torch's default type and device, which the user may have set to anything."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from tests.contracts.test_edge_cases import FITTED, HERE, LAYERS, ON_REFERENCE, ids
from torch import Tensor

from bitplan.plans.kernels import Kernel, geometry_of
from bitplan.plans.kernels.cpu import int8
from bitplan.plans.kernels.cpu.paths import PATHS
from bitplan.plans.layers.modules import quantize_module
from bitplan.plans.scheme import Scheme, parse_scheme

ROOT = Path(__file__).parents[2]
DEFAULTS = [(torch.bfloat16, "cpu"), (torch.float16, "cpu"), (torch.float64, "cpu"), (torch.float32, "meta")]
MAKERS = {"arange", "empty", "empty_strided", "eye", "full", "linspace", "logspace", "ones", "rand", "randint", "randn",
          "randperm", "tensor", "zeros"}  # fmt: skip


@contextmanager
def defaults(dtype: torch.dtype, device: str) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(torch.float32)


def check_equal(compute: Callable[[], Tensor]) -> None:
    expected = compute()
    for dtype, device in DEFAULTS:
        with defaults(dtype, device):
            out = compute()
        assert out.dtype == expected.dtype and torch.equal(out, expected), (dtype, device)


@pytest.mark.parametrize(("kernel", "scheme", "kind"), HERE, ids=ids)
def test_a_packed_layer(kernel: Kernel, scheme: Scheme, kind: str) -> None:
    layer, x = LAYERS[kind]
    check_equal(lambda: quantize_module(layer, scheme, kernel, FITTED)(x))


@pytest.mark.parametrize(("kernel", "scheme"), ON_REFERENCE, ids=ids)
def test_a_simulated_layer(kernel: Kernel, scheme: Scheme) -> None:
    for kind, (layer, x) in LAYERS.items():
        if kernel.supports(scheme, kind, "cpu", geometry_of(layer)) is None:
            check_equal(lambda layer=layer, x=x: quantize_module(layer, scheme, kernel, FITTED)(x))  # type: ignore[misc]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", ["linear", "conv1d", "conv2d", "conv3d"])
def test_every_path_of_the_int8_products(path: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "chosen_path", lambda: path)
    (layer, x), scheme = LAYERS[kind], parse_scheme("w8a8")
    check_equal(lambda: quantize_module(layer, scheme, int8.CPU_INT8, FITTED)(x))


def test_every_tensor_that_is_made_names_its_type_and_device() -> None:
    """The rule by which the above holds also for measuring, on any device."""
    calls = [
        (f"{path.relative_to(ROOT)}:{node.lineno}", {keyword.arg for keyword in node.keywords})
        for folder in ("planner", "plans", "sensitivity")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MAKERS
        and isinstance(node.func.value, ast.Name) and node.func.value.id == "torch"
    ]  # fmt: skip
    assert len(calls) > 20
    assert not [place for place, keywords in calls if not {"dtype", "device"} <= keywords]
