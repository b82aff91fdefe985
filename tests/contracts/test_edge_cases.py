"""What every kernel promises for inputs that are not finite, or empty, and every layer under autocast."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from tests.contracts.kernel_cases import CASES, NEEDS, SCHEMES, compute, held, ids
from torch import Tensor, nn

from bitplan.plans.formats.storage import quantize
from bitplan.plans.kernels import KERNELS, REFERENCE, Held, Kernel, geometry_of
from bitplan.plans.kernels.base import KernelError, output_of
from bitplan.plans.kinds import KINDS
from bitplan.plans.layers.modules import kind_of, quantize_module
from bitplan.plans.numerics import range_tensor
from bitplan.plans.scheme import KEEP, Scheme, parse_scheme

FITTED = range_tensor({"tensor": 2.5, "first": 4.0})
LAYERS = {
    "linear": (nn.Linear(34, 5), torch.randn(2, 3, 34)),
    "conv1d": (nn.Conv1d(5, 4, 3, padding=4), torch.randn(2, 5, 9)),  # its first output reads padding alone
    "conv2d": (nn.Conv2d(5, 3, 3, stride=2, padding=1), torch.randn(2, 5, 5, 4)),
    "conv3d": (nn.Conv3d(3, 4, (1, 3, 2)), torch.randn(2, 3, 2, 4, 3)),
    "embedding": (nn.Embedding(9, 70), torch.tensor([[0, 8, 2], [5, 5, 1]])),
}
EVERY = [
    pytest.param(kernel, scheme, kind, marks=NEEDS.get(kernel.name, []))
    for kernel, scheme, kind in itertools.product(KERNELS.values(), SCHEMES, LAYERS)
    if scheme != KEEP and kernel.refuses(scheme, kind, geometry_of(LAYERS[kind][0])) is None
]
HERE = [case for case in EVERY if case.values[0].available(torch.device("cpu")) is None]
ON_REFERENCE = [(REFERENCE, scheme) for scheme in SCHEMES if scheme.inputs.bits < 16]
BAD = [math.nan, math.inf, -math.inf]


def held_of(layer: nn.Module, scheme: Scheme) -> Held:
    packed = quantize(layer.weight, scheme.weight)
    bias = None if getattr(layer, "bias", None) is None else layer.bias.detach()
    if isinstance(layer, nn.Embedding):
        return Held(packed, scheme, "embedding")
    return held(packed, scheme, bias, geometry_of(layer))


def computed(kernel: Kernel, x: Tensor, its: Held) -> Tensor:
    if kernel is REFERENCE:
        return kernel.run(x, its)
    return compute(kernel, x, its.packed, its.scheme, its.bias, its.geometry)


@pytest.mark.parametrize(("kernel", "scheme"), [*CASES, *ON_REFERENCE], ids=ids)
def test_an_input_that_is_not_finite_gives_nan_where_the_specification_does(kernel: Kernel, scheme: Scheme) -> None:
    """Rounded: in the whole row, which is what shares a scale, and nowhere else."""
    for (kind, (layer, x)), dtype in zip(LAYERS.items(), itertools.cycle([torch.float32, torch.bfloat16])):
        if kind == "embedding" or kernel.refuses(scheme, kind, geometry_of(layer)) is not None:
            continue
        x, its = x.to(dtype), held_of(layer, scheme)
        clean = torch.cat([x[:1]] * 4)
        written = clean.clone()
        for sample, bad in enumerate(BAD, 1):
            written[sample].view(-1)[-2] = bad
        out, expected = computed(kernel, written, its), REFERENCE.run(written, its)
        assert torch.equal(out[0], computed(kernel, clean, its)[0]), kind
        if scheme.inputs.bits < 16:
            rows = out[:, -1] if kind == "linear" else out
            assert torch.equal(out.isnan(), expected.isnan()), kind
            assert bool(rows[1:].isnan().all()) and int(out.isnan().sum()) == rows[1:].numel()
        else:  # torch's 16-bit convolutions may spread it to their neighbours
            assert not out[~expected.isfinite()].isfinite().any(), kind


@pytest.mark.parametrize(("kernel", "scheme", "kind"), EVERY, ids=ids)
def test_an_empty_batch_gives_an_empty_output_as_the_float_layer(kernel: Kernel, scheme: Scheme, kind: str) -> None:
    layer, x = LAYERS[kind]
    empty = [x[:0]] if KINDS[kind].dims else [x[:0], x[:, :0], x[0, :0]]
    for given in empty:
        out = output_of(kernel, given, held_of(layer, scheme))
        assert out.shape == layer(given).shape and out.dtype == torch.float32
        if given.is_floating_point():
            assert output_of(kernel, given.bfloat16(), held_of(layer, scheme)).dtype == torch.bfloat16


@pytest.mark.parametrize(("kernel", "scheme", "kind"), HERE, ids=ids)
def test_a_packed_layer_takes_empty_batches(kernel: Kernel, scheme: Scheme, kind: str) -> None:
    layer, x = LAYERS[kind]
    made = quantize_module(layer, scheme, kernel, FITTED)
    for given in [x[:0]] if KINDS[kind].dims else [x[:0], x[:, :0]]:
        assert made(given).shape == layer(given).shape


@pytest.mark.parametrize("kind", [kind for kind in LAYERS if kind != "embedding"])
def test_other_empty_inputs_are_refused(kind: str) -> None:
    layer, x = LAYERS[kind]
    its = held_of(layer, parse_scheme("w8a8"))
    wrong = [torch.empty(0, *x.shape[1:-1], 3)] if kind == "linear" else [torch.empty(0, 7, *x.shape[2:]), x[..., :0]]
    for given in wrong:
        with pytest.raises(KernelError, match=r"does not fit a .* layer.*only the number of samples may be 0"):
            output_of(REFERENCE, given, its)


@pytest.mark.parametrize(("kernel", "scheme", "kind"), HERE, ids=ids)
def test_inputs_of_another_width_are_refused(kernel: Kernel, scheme: Scheme, kind: str) -> None:
    layer, x = LAYERS[kind]
    made, dim = quantize_module(layer, scheme, kernel, FITTED), 1 if KINDS[kind].dims else -1
    wrong = [torch.cat([x, x], dim), x.narrow(dim, 0, 1)] if x.is_floating_point() else []
    for given in wrong:
        with pytest.raises(RuntimeError):
            layer(given)
        with pytest.raises(KernelError, match=rf"does not fit a {kind} layer with a weight of shape [^;]*$"):
            made(given)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
@pytest.mark.parametrize(("kernel", "scheme", "kind"), HERE, ids=ids)
def test_under_autocast_the_type_is_that_of_a_float_layer(
    kernel: Kernel, scheme: Scheme, kind: str, dtype: torch.dtype
) -> None:
    """The input is cast before it is rounded, and the kernel computes as it does without autocast."""
    layer, x = LAYERS[kind]
    made = quantize_module(layer, scheme, kernel, FITTED)
    given: Tensor = x.to(dtype) if x.is_floating_point() else x
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            out = made(given)
            expected_type = layer(given).dtype if dtype != torch.float64 else made(given).dtype
        cast = given.bfloat16() if given.dtype in (torch.float32, torch.float16) else given
        assert out.dtype == expected_type and torch.equal(out, made(cast))


@pytest.mark.parametrize("text", ["w8a8", "w4a16", "w4a4"])
def test_a_compiled_layer_heeds_autocast(text: str) -> None:
    scheme = parse_scheme(text)
    kernel = next(each for each in KERNELS.values() if each.supports(scheme, "linear") is None)
    layer = nn.Sequential(quantize_module(nn.Linear(64, 5), scheme, kernel))
    assert kind_of(layer[0]) is None
    torch._dynamo.reset()
    compiled, x = torch.compile(layer, fullgraph=True, backend="aot_eager"), torch.randn(3, 64)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        out = compiled(x)
        torch.testing.assert_close(out, layer(x))
    assert out.dtype == torch.bfloat16
