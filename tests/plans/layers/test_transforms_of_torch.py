"""What torch's transforms and compilers do with packed layers: the same as without, or a refusal in words."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jacfwd, jvp, vjp, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from bitplan.plans.kernels import KERNELS, REFERENCE, Kernel, KernelError
from bitplan.plans.kernels.cpu.choice import path_choice
from bitplan.plans.layers.modules import quantize_module
from bitplan.plans.numerics import range_tensor
from bitplan.plans.scheme import Scheme, parse_scheme

LAYERS = {
    "linear": (lambda: nn.Linear(64, 5), torch.randn(3, 64)),
    "conv2d": (lambda: nn.Conv2d(8, 4, 3, padding=1), torch.randn(2, 8, 5, 5)),
    "embedding": (lambda: nn.Embedding(9, 8), torch.tensor([[1, 2], [3, 4]])),
}
CASES = [
    pytest.param(kernel, scheme, kind, id=f"{kernel.name}-{scheme}-{kind}")
    for kernel, scheme, kind in itertools.product(
        KERNELS.values(), map(parse_scheme, ("w8a8", "w4g64za8t", "w4a16", "w4a4")), LAYERS
    )
    if kernel.supports(scheme, kind, "cpu") is None
]
PLAIN = [case for case in CASES if case.values[0] is REFERENCE and case.values[1].inputs.bits == 16]
FLOATS = [case for case in CASES if case not in PLAIN and case.values[2] != "embedding"]
RECORDING = "packed layers cannot be recorded by .*; use torch.compile or torch.export"
GRADIENT = "a packed layer has no gradient"


def made(kernel: Kernel, scheme: Scheme, kind: str) -> tuple[nn.Sequential, Tensor]:
    make, x = LAYERS[kind]
    fitted = range_tensor({"tensor": 2.5})
    return nn.Sequential(quantize_module(make(), scheme, kernel, fitted)).eval(), x


def dual(model: nn.Module, x: Tensor) -> None:
    with forward_ad.dual_level():
        model(forward_ad.make_dual(x, torch.ones_like(x)))


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(("kernel", "scheme", "kind"), CASES)
def test_an_exported_layer_is_the_layer(kernel: Kernel, scheme: Scheme, kind: str, strict: bool) -> None:
    path_choice.cache_clear()  # as in a fresh process: the first call is the export
    model, x = made(kernel, scheme, kind)
    assert torch.equal(torch.export.export(model, (x,), strict=strict).module()(x), model(x))


@pytest.mark.parametrize(("kernel", "scheme", "kind"), CASES)
def test_a_functional_call_takes_the_tensors_of_another_layer(kernel: Kernel, scheme: Scheme, kind: str) -> None:
    model, x = made(kernel, scheme, kind)
    other, _ = made(kernel, scheme, kind)
    out = functional_call(model, dict(other.named_parameters()), (x,))
    assert torch.equal(out, other(x)) and not torch.equal(out, model(x))


RECORDERS: dict[str, Callable[[nn.Module, Tensor], object]] = {
    "trace": torch.jit.trace,
    "trace of a function": lambda model, x: torch.jit.trace(lambda value: model(value), x),
    "script": lambda model, x: torch.jit.script(model),
    "make_fx": lambda model, x: make_fx(model)(x),
    "make_fx, symbolic": lambda model, x: make_fx(model, tracing_mode="symbolic")(x),
}


@pytest.mark.parametrize("record", RECORDERS.values(), ids=RECORDERS)
@pytest.mark.parametrize(("kernel", "scheme", "kind"), CASES)
def test_other_recorders_are_refused(
    kernel: Kernel, scheme: Scheme, kind: str, record: Callable[[nn.Module, Tensor], object]
) -> None:
    with pytest.raises(KernelError, match=RECORDING):
        record(*made(kernel, scheme, kind))


@pytest.mark.parametrize(("kernel", "scheme", "kind"), CASES)
def test_symbolic_values_are_refused(kernel: Kernel, scheme: Scheme, kind: str) -> None:
    with pytest.raises(KernelError, match="takes a tensor, not a Proxy; to record a model, use torch.compile"):
        torch.fx.symbolic_trace(made(kernel, scheme, kind)[0])


@pytest.mark.parametrize(("kernel", "scheme", "kind"), CASES)
def test_vmap_is_refused_but_for_plain_simulations(kernel: Kernel, scheme: Scheme, kind: str) -> None:
    model, x = made(kernel, scheme, kind)
    if kernel is REFERENCE and scheme.inputs.bits == 16:
        torch.testing.assert_close(vmap(model)(torch.stack([x, x])), torch.stack([model(x)] * 2))
    else:
        with pytest.raises(KernelError, match=r"do not run under torch.vmap; .* as part of the batch"):
            vmap(model)(torch.stack([x, x]))


GRADIENTS: dict[str, Callable[[nn.Module, Tensor], object]] = {
    "backward": lambda model, x: model(x.requires_grad_()).sum().backward(),
    "by keyword": lambda model, x: model[0](input=x.requires_grad_()).sum().backward(),  # type: ignore[index]
    "of the bias": lambda model, x: model(x).sum().backward(),
    "grad": lambda model, x: grad(lambda value: model(value).sum())(x),
    "vjp": lambda model, x: vjp(model, x)[1](model(x)),
    "compiled": lambda model, x: torch.compile(model, backend="aot_eager", fullgraph=True)(x).sum().backward(),
    "jvp": lambda model, x: jvp(model, (x,), (x,)),
    "dual numbers": dual,
}


@pytest.mark.parametrize("differentiate", GRADIENTS.values(), ids=GRADIENTS)
@pytest.mark.parametrize(("kernel", "scheme", "kind"), FLOATS)
def test_gradients_are_refused(
    kernel: Kernel, scheme: Scheme, kind: str, differentiate: Callable[[nn.Module, Tensor], object]
) -> None:
    model, x = made(kernel, scheme, kind)
    torch._dynamo.reset()
    with pytest.raises(KernelError, match=GRADIENT):
        differentiate(model, x.clone())


@pytest.mark.parametrize(("kernel", "scheme", "kind"), FLOATS)
def test_a_call_without_backward_is_none(kernel: Kernel, scheme: Scheme, kind: str) -> None:
    """With gradients enabled, eager and compiled calls give what they give without."""
    model, x = made(kernel, scheme, kind)
    torch._dynamo.reset()
    with torch.no_grad():
        expected = model(x)
    asked = x.clone().requires_grad_()
    for run in (model, torch.compile(model, backend="aot_eager", fullgraph=True)):
        assert torch.equal(run(asked).detach(), expected)
    with pytest.raises(KernelError, match="vmap"):
        jacfwd(model)(x)
