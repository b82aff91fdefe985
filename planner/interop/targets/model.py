"""Reads the layers' kinds and shapes, which a plan does not hold, from its profile, a configuration or the pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bitplan.planner.errors import UserError
from bitplan.planner.graph.layers import architecture_fingerprint, from_json
from bitplan.planner.interop.targets.base import Model
from bitplan.planner.profiles.profile import open_profile
from bitplan.plans.plan import Plan, check_layers

if TYPE_CHECKING:
    from torch import nn


def read_model(plan: Plan, source: str | None = None) -> Model:
    """Reads the layers of the plan's model.

    source: a profile, which needs no torch; a configuration in JSON, which needs no weights; or a pipeline as
    `load_pipeline` takes it; None for the pipeline that the plan names. Raises UserError, ProfileError, PlanError.
    """
    if source is not None and source.endswith(".json"):
        from bitplan.planner.outlines.models import read

        return _from_modules(plan, read(source, plan.model["components"]).parts)
    if source is not None and Path(source).is_file():
        return _from_profile(Path(source))
    return _from_pipeline(plan, plan.model["name"] if source is None else source)


def _from_profile(path: Path) -> Model:
    with open_profile(path) as store:
        graph, header = from_json(store.graph()), store.header()
    if "source" in header:
        raise UserError(f"{path} was imported and does not hold the kinds of its layers; give the pipeline as --model")
    return Model(graph.by_address, graph.unused, architecture_fingerprint(graph))


def _from_pipeline(plan: Plan, name: str) -> Model:
    from bitplan.planner.pipelines.sources import components, load_pipeline

    return _from_modules(plan, components(load_pipeline(name), plan.model["components"]))


def _from_modules(plan: Plan, parts: Mapping[str, nn.Module]) -> Model:
    from bitplan.planner.graph.trace import find_layers, survey

    check_layers(plan, find_layers(parts))
    graph = survey(parts, plan.schemes)
    with_weights = (
        f"{component}.{path}"
        for component, root in parts.items()
        for path, module in root.named_modules()
        if path and getattr(getattr(module, "weight", None), "ndim", 0) > 1
    )
    others = tuple(address for address in with_weights if address not in plan.schemes)
    return Model(graph.by_address, others, architecture_fingerprint(graph))
