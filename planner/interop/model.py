"""Reads the layers' kinds and shapes, which a plan does not hold, from its profile, a configuration or the pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bitplan.planner.errors import UserError
from bitplan.planner.graph.layers import Layer, architecture_fingerprint, from_json
from bitplan.planner.profiles.profile import open_profile
from bitplan.plans.dtypes import FLOAT32, itemsize_of
from bitplan.plans.plan import Plan, check_layers
from bitplan.plans.scheme import parse_scheme

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Model:
    """The layers of a plan's model.

    Attributes:
        layers: address -> planned layer.
        unplanned: addresses of other modules with a weight matrix, as far as they are known.
        architecture: the fingerprint of the layers.
        tied: groups of layers with one weight.
        sizes: layer -> bytes of its planned scheme as BitPlan stores it, as far as they are known.
    """

    layers: Mapping[str, Layer]
    unplanned: tuple[str, ...]
    architecture: str
    tied: tuple[tuple[str, ...], ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)


def read_model(plan: Plan, source: str | None = None, variant: str | None = None) -> Model:
    """Reads the layers of the plan's model.

    source: a profile, which needs no torch; a configuration in JSON, which needs no weights; or a pipeline as
    `load_pipeline` takes it; None for the pipeline that the plan names. variant: of that pipeline's weights. Raises
    UserError, ProfileError, PlanError.
    """
    if source is not None and source.endswith(".json"):
        from bitplan.planner.outlines.models import read

        return _from_modules(plan, read(source, plan.model["components"]).parts)
    if source is not None and Path(source).is_file():
        return _from_profile(plan, Path(source))
    return _from_pipeline(plan, plan.model["name"] if source is None else source, variant)


def _from_profile(plan: Plan, path: Path) -> Model:
    with open_profile(path) as store:
        graph, header, costs = from_json(store.graph()), store.header(), store.costs()
    if "source" in header:
        raise UserError(f"{path} was imported and does not hold the kinds of its layers; give the pipeline as --model")
    sizes = {cost.layer: cost.bytes for cost in costs if plan.schemes.get(cost.layer) == cost.scheme}
    return Model(graph.by_address, graph.unused, architecture_fingerprint(graph), graph.tied, sizes)


def _from_pipeline(plan: Plan, name: str, variant: str | None) -> Model:
    from bitplan.planner.pipelines.sources import components, load_pipeline
    from bitplan.planner.pipelines.weights import weights_for

    return _from_modules(plan, components(load_pipeline(name, weights_for([plan], variant)), plan.model["components"]))


def _from_modules(plan: Plan, parts: Mapping[str, nn.Module]) -> Model:
    from bitplan.planner.graph.trace import find_layers, survey
    from bitplan.plans.numerics import scheme_bytes

    check_layers(plan, find_layers(parts))
    graph = survey(parts, plan.schemes)
    with_weights = (
        f"{component}.{path}"
        for component, root in parts.items()
        for path, module in root.named_modules()
        if path and getattr(getattr(module, "weight", None), "ndim", 0) > 1
    )
    others = tuple(address for address in with_weights if address not in plan.schemes)
    itemsize = itemsize_of(plan.model.get("dtype", FLOAT32))
    sizes = {
        address: scheme_bytes(parse_scheme(scheme), graph.by_address[address].weight, itemsize)
        for address, scheme in plan.schemes.items()
    }
    return Model(graph.by_address, others, architecture_fingerprint(graph), graph.tied, sizes)
