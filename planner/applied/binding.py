"""Binds a plan to the float components that it is for: checked, parsed and looked up once."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import nn

from bitplan.planner.applied.config import transform_parameters
from bitplan.planner.applied.fused import check_fused
from bitplan.planner.graph.fingerprint import fingerprint_of
from bitplan.planner.graph.layers import architecture_fingerprint
from bitplan.planner.graph.trace import graph_of, list_layers
from bitplan.plans.dtypes import float_type
from bitplan.plans.layers.addresses import find_module
from bitplan.plans.layers.carried import attached
from bitplan.plans.layers.modules import refusal_of
from bitplan.plans.layers.opening import close, open_all
from bitplan.plans.layers.swap import OpenLayers, Swap, swap, swap_open
from bitplan.plans.numerics import range_tensor
from bitplan.plans.plan import Plan, PlanError, check_architecture, check_fingerprint, check_layers
from bitplan.plans.scheme import KEEP, Scheme
from bitplan.plans.transforms.base import Fitted


@dataclass(frozen=True, eq=False)
class Binding:
    """A plan and the float components that it is for.

    Attributes:
        plan: the plan.
        parts: component -> module.
    """

    plan: Plan
    parts: Mapping[str, nn.Module]

    @property
    def schemes(self) -> Mapping[str, Scheme]:
        """Layer address -> scheme."""
        return self.plan.parsed

    @cached_property
    def fitted(self) -> Mapping[str, Fitted]:
        """Layer address -> fitted parameters."""
        return fitted_in(self.plan)

    def swap(self, real: bool, layers: Collection[str] | None = None, keep_originals: bool = True) -> Swap:
        """Swaps the layers, or those of `layers` alone. Raises as `bitplan.plans.layers.swap.swap`."""
        schemes = {layer: scheme for layer, scheme in self.schemes.items() if layers is None or layer in layers}
        return swap(self.parts, schemes, self.fitted, real, keep_originals)


def bind(plan: Plan, parts: Mapping[str, nn.Module], allow_mismatch: bool = False) -> Binding:
    """Checks that `plan` fits the components `parts`.

    Raises PlanError for other layers, another architecture or another fingerprint, unless the last is allowed;
    GraphError for a weight that is NaN or infinite.
    """
    close(_checked_layers(plan, parts, allow_mismatch).opening)
    return Binding(plan, parts)


def bind_and_swap(
    plan: Plan, parts: Mapping[str, nn.Module], real: bool, allow_mismatch: bool, keep_originals: bool
) -> Swap:
    """Checks as `bind` and swaps the layers while their attentions are open, so that all is looked up once."""
    layers = _checked_layers(plan, parts, allow_mismatch)
    try:
        binding = Binding(plan, parts)
        schemes, fitted = binding.schemes, binding.fitted
    except BaseException:
        close(layers.opening)
        raise
    return swap_open(layers, schemes, fitted, real, keep_originals)


def _checked_layers(plan: Plan, parts: Mapping[str, nn.Module], allow_mismatch: bool) -> OpenLayers:
    """Returns the plan's layers with all attentions open; closes them again if a check fails."""
    opening = open_all(parts)
    try:
        listed = list_layers(parts)
        _check_refusals(plan, parts, listed.layers)
        check_layers(plan, list(listed.layers))
        modules = {layer: listed.layers[layer][0] for layer in plan.schemes}
        _check_attached(plan, modules)
        check_fused(plan.schemes, parts)
        graph = graph_of(listed, list(plan.schemes))
        check_architecture(plan, architecture_fingerprint(graph))
        digest = fingerprint_of(graph, lambda layer, name: getattr(modules[layer], name, None))
        check_fingerprint(plan, digest, allow_mismatch, float_type(modules.values()))
    except BaseException:
        close(opening)
        raise
    return OpenLayers(parts, opening, modules)


def _check_refusals(plan: Plan, parts: Mapping[str, nn.Module], known: Collection[str]) -> None:
    """Raises PlanError for a layer of the plan that is there, but cannot be replaced."""
    for address in plan.schemes:
        if address not in known and (module := find_module(parts, address)) and (reason := _reason(module)):
            raise PlanError(f"{address} cannot be replaced: {reason}; apply the plan before that is done to it, or "
                            "load the float pipeline")  # fmt: skip


def _reason(module: nn.Module) -> str | None:
    adapted = isinstance(getattr(module, "base_layer", None), nn.Module)  # peft puts such a module around the layer
    return "a LoRA or another adapter is loaded on it" if adapted else refusal_of(module)


def _check_attached(plan: Plan, modules: Mapping[str, nn.Module]) -> None:
    """Raises PlanError for a layer on which something hangs that would be lost."""
    for address, module in modules.items():
        if plan.schemes[address] != str(KEEP) and (what := attached(module)):
            raise PlanError(f"{address} {what}, which would be lost with the layer; apply the plan first, and then add "
                            "that, or remove it")  # fmt: skip


def fitted_in(plan: Plan) -> dict[str, Fitted]:
    """Returns layer -> the plan's fitted parameters: calibrated ranges, and those of transforms."""
    calibrated: Mapping[str, Mapping[str, float]] = plan.calibration.get("ranges", {})
    fitted = {layer: range_tensor(ranges) for layer, ranges in calibrated.items()}
    for layer, scheme in plan.parsed.items():
        if tensors := transform_parameters(plan, layer, scheme):
            fitted.setdefault(layer, {}).update(tensors)
    return dict(fitted)
