"""The simulation of a scheme in one float layer: what its weight and its input become.

The layer as it runs with a scheme (`variant`), what the scheme changes in the layer's output (`output_changes`) and the
reference kernel all compute with the transformed and rounded weight and input of `bitplan.plans.numerics`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear

from bitplan.plans.formats.storage import Grid, Packed, dequantize, grid_of, on_grid, quantize
from bitplan.plans.inputs.base import ActivationScales
from bitplan.plans.kinds import KINDS
from bitplan.plans.layers.modules import kind_of
from bitplan.plans.layers.swap import _kernel_for, find_layer
from bitplan.plans.numerics import NONE, fitted_for, rounded_input, scales_in, transformed_input, transformed_weight
from bitplan.plans.scheme import KEEP, Scheme, Term, WeightFormat
from bitplan.plans.transforms.base import Fitted

Side = tuple[WeightFormat, tuple[Term, ...]]  # what a stored weight depends on, beside the weight


@dataclass(frozen=True, eq=False)
class Simulation:
    """A scheme in one layer: its weight and its input, before and after they are rounded.

    Attributes:
        kind: of the layer.
        scheme: the scheme, with everything that it needs in `fitted` and, as numbers, in `scales`.
    """

    kind: str
    scheme: Scheme
    fitted: Fitted
    scales: ActivationScales | None

    @property
    def side(self) -> Side:
        """What the stored weight depends on."""
        return self.scheme.weight, self.scheme.transforms

    @property
    def touches_input(self) -> bool:
        """Whether the input is rounded or transformed."""
        return self.scheme.inputs.bits < 16 or bool(self.scheme.transforms)

    def weight(self, weight: Tensor) -> Tensor:
        """The transformed weight, of the shape of `weight`."""
        return transformed_weight(weight.detach(), self.scheme, self.fitted)

    def transformed(self, x: Tensor) -> Tensor:
        """The transformed input."""
        return transformed_input(x, self.kind, self.scheme, self.fitted)

    def rounded(self, x: Tensor) -> Tensor:
        """A transformed input rounded to its codes and back. Raises ActivationError."""
        return rounded_input(x, self.kind, self.scheme, self.scales)


def simulate(module: Any, scheme: Scheme, fitted: Fitted = NONE) -> Simulation:
    """`scheme` in a float layer. Raises ActivationError for a fitted parameter that is missing."""
    held = fitted_for(scheme, module.weight.shape, fitted, module.weight.device)
    return Simulation(str(kind_of(module)), scheme, held, scales_in(held))


@contextmanager
def variant(
    components: Mapping[str, nn.Module],
    layer: str,
    scheme: Scheme,
    fitted: Fitted = NONE,
    cache: MutableMapping[tuple[str, Side], Packed] | None = None,
) -> Iterator[nn.Module]:
    """Within the `with`, simulates `scheme` on one layer and yields the module, which stays the same object.

    Its weight is replaced by the dequantized one, in the layer's float type, and a hook transforms and rounds its
    input: in a float32 model the numerics of the reference kernel.

    Args:
        components: the components by name.
        layer: the layer's address.
        scheme: the scheme.
        fitted: the parameters that the scheme needs.
        cache: of the caller; holds packed weights so that a second visit does not search for scales again.

    Raises SwapError for an unknown layer, KernelError for a scheme that is not defined for it, FormatError for its
    weights, ActivationError for a fitted parameter that is missing.
    """
    module = find_layer(components, layer)
    if scheme == KEEP:
        yield module
        return
    _kernel_for(module, layer, scheme, False)
    simulation, original = simulate(module, scheme, fitted), module.weight
    packed = _packed(original, layer, simulation, {} if cache is None else cache)
    weight = dequantize(packed).to(original.dtype)
    hook = _input_hook(simulation)
    handle = module.register_forward_pre_hook(hook, with_kwargs=True) if simulation.touches_input else None
    try:
        module.weight = nn.Parameter(weight, requires_grad=False)
        yield module
    finally:
        module.weight = original
        if handle is not None:
            handle.remove()


def _packed(
    weight: Tensor, layer: str, simulation: Simulation, cache: MutableMapping[tuple[str, Side], Packed]
) -> Packed:
    key = layer, simulation.side
    if key not in cache:
        cache[key] = quantize(simulation.weight(weight), simulation.scheme.weight)
    return cache[key]


def _input_hook(simulation: Simulation) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        x = args[0] if args else kwargs["input"]
        rounded = simulation.rounded(simulation.transformed(x))
        return ((rounded, *args[1:]), kwargs) if args else (args, {**kwargs, "input": rounded})

    return hook


@torch.no_grad()
def output_changes(
    module: nn.Module,
    x: Tensor,
    schemes: Iterable[tuple[Scheme, Fitted]],
    grids: MutableMapping[Side, Grid],
) -> Iterator[tuple[Scheme, Tensor]]:
    """Each scheme and the change that it makes in the layer's output, of the output's shape.

    With W and x the transformed weight and input, whose product is that of the float layer, it is dW x' + W dx, for x'
    the rounded input and dW and dx what rounding changes.

    Args:
        module: a float layer.
        x: its input.
        schemes: with the fitted parameters that each needs.
        grids: of the caller; holds the layer's grids from one visit to the next.

    Raises ActivationError, FormatError.
    """
    rounded: dict[tuple[Any, ...], tuple[Tensor, Tensor | None]] = {}
    for scheme, fitted in schemes:
        simulation = simulate(module, scheme, fitted)
        key = scheme.inputs, scheme.transforms
        weight = simulation.weight(module.weight)
        if key not in rounded:
            rounded[key] = _rounded(module, x, simulation, weight)
        if simulation.side not in grids:
            grids[simulation.side] = grid_of(weight, scheme.weight)
        inputs, through = rounded[key]
        difference = on_grid(weight, grids[simulation.side]).sub_(weight).to(weight.dtype)
        change = _product(module, simulation.kind, inputs, difference)
        yield scheme, change if through is None else change.add_(through)


def _rounded(module: nn.Module, x: Tensor, simulation: Simulation, weight: Tensor) -> tuple[Tensor, Tensor | None]:
    """The rounded input, and the change that this makes in the output, None if nothing is rounded.

    The differences are taken before the products and in float32: in 16 bits the difference of two outputs would be
    mostly their own rounding.
    """
    if simulation.scheme.inputs.bits == 16:
        return simulation.transformed(x), None
    exact = simulation.transformed(x.float())
    rounded = simulation.rounded(exact)
    return rounded.to(x.dtype), _product(module, simulation.kind, (rounded - exact).to(x.dtype), weight)


def _product(module: Any, kind: str, x: Tensor, weight: Tensor) -> Tensor:
    """Without the bias, which no scheme changes."""
    if KINDS[kind].dims:
        return module._conv_forward(x, weight, None)  # padding modes and all
    return embedding(x, weight) if KINDS[kind].looks_up else linear(x, weight)
