"""Turns a profile and solutions of its problems into the parts of a `View`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from bitplan.planner.choice.evidence import KEEP, Evidence, groups_of, read_evidence
from bitplan.planner.choice.problem import formulate
from bitplan.planner.graph.layers import Layer, LayerGraph, blocks_of, from_json
from bitplan.planner.profiles.profile import Profile
from bitplan.planner.units import COSTS
from bitplan.planner.views.view import FULL, Cell, Column, Option, Variant
from bitplan.plans.scheme import parse_scheme, weights_alone
from bitplan.sensitivity.table import FAMILIES
from bitplan.solvers.problem import Problem, ProblemError
from bitplan.solvers.solution import Choice, Solution, choice_of, uniform

_FLOAT_BITS = {"float32": 32}  # a layer in full precision has 16 bits in every other type


@dataclass(frozen=True)
class ProfileView:
    """What views need of one profile, read once by `load_profile_view`.

    Attributes:
        model: the model's part of the profile's header.
        evidence: losses, costs and offered schemes.
        graph: the layers.
    """

    model: Mapping[str, object]
    evidence: Evidence
    graph: LayerGraph

    @cached_property
    def problem(self) -> Problem:
        """All candidates and columns with mean losses, without an objective, budgets, pins or forbidden candidates."""
        return formulate(replace(self.evidence, z=0.0), {}, (), real=False)

    @cached_property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Maps each group to its layers."""
        return groups_of(self.evidence)

    @cached_property
    def first_of(self) -> dict[str, str]:
        """Maps each layer to the first one of its group."""
        return {layer: layers[0] for layers in self.groups.values() for layer in layers}

    @cached_property
    def option_indices(self) -> dict[str, dict[str, int]]:
        """Maps layer and scheme to the index of the scheme among the layer's options."""
        return {layer: {s: i for i, s in enumerate(names)} for layer, names in self.evidence.offered.items()}


def load_profile_view(store: Profile, confidence: float | None = None, target: str | None = None) -> ProfileView:
    """Reads a profile, for a target if one is named. Raises UserError where it is not finished."""
    return ProfileView(store.header()["model"], read_evidence(store, confidence, target), from_json(store.graph()))


def columns_of(data: ProfileView) -> tuple[Column, ...]:
    """Returns costs, then families, then metrics."""
    metrics, columns = data.evidence.metrics, data.problem.columns
    costs = [Column(name, name, "") for name in COSTS]
    families = [Column(name, "", "") for name in FAMILIES if name in columns]
    return (*costs, *families, *(Column(name, "", family) for name, family in metrics.items()))


def cells_of(data: ProfileView) -> tuple[Cell, ...]:
    """Returns one cell for each layer, in order of first execution."""
    layers = data.graph.by_address
    order = [layer for layer in layers if layer in data.evidence.offered]
    block = {layer: name for name, members in blocks_of(order).items() for layer in members}
    return tuple(_cell(data, layers[name], block[name]) for name in order)


def _cell(data: ProfileView, layer: Layer, block: str) -> Cell:
    evidence, name = data.evidence, layer.address
    options = tuple(_option(data, name, scheme) for scheme in evidence.offered[name])
    return Cell(name, layer.role, block, layer.kind, layer.weight, layer.macs, layer.call_count, options, layer.share)


def _option(data: ProfileView, layer: str, scheme: str) -> Option:
    evidence, losses = data.evidence, {}
    for metric in () if scheme == KEEP else evidence.metrics:
        loss = evidence.losses.measurement(layer, scheme, metric)
        losses[metric] = (loss.mean, loss.stderr if math.isfinite(loss.stderr) else None)
    float_bits = _FLOAT_BITS.get(str(data.model.get("dtype", "")), 16)
    bits = float_bits if scheme == KEEP else parse_scheme(scheme).weight.bits
    pair, first = (layer, scheme), data.first_of[layer]
    size = 0 if scheme == KEEP and layer != first else evidence.size[first, scheme]
    return Option(scheme, bits, size, evidence.ms[pair], losses, pair not in evidence.simulated)


def variant_of(data: ProfileView, name: str, status: str, choice: Choice) -> Variant:
    """Returns a choice as a variant. choice: a choice of any problem of the same profile."""
    scheme_of = {layer: choice.names[group] for group, layers in data.groups.items() for layer in layers}
    cells = [layer for layer in data.graph.by_address if layer in scheme_of]
    picks = tuple(data.option_indices[layer][scheme_of[layer]] for layer in cells)
    flat = tuple(data.problem.index(group, choice.names[group]) for group in data.problem.groups)
    totals = dict(choice_of(data.problem, flat).totals)
    return Variant(name, status, picks, totals=totals, errors=_errors(data, scheme_of))


def solution_variant(data: ProfileView, name: str, solution: Solution, limit: float | None = None) -> Variant:
    """Returns a solution as a variant, with or without a choice."""
    bound = solution.bound if math.isfinite(solution.bound) else None
    if solution.choice is None:
        return Variant(name, str(solution.status), limit=limit, bound=bound)
    variant = variant_of(data, name, str(solution.status), solution.choice)
    gap = solution.gap if math.isfinite(solution.gap) else None
    return replace(variant, limit=limit, objective=solution.objective, bound=bound, gap=gap)


def full_precision_variant(data: ProfileView) -> Variant:
    """Returns the variant that keeps every layer in full precision."""
    return variant_of(data, FULL, FULL, uniform(data.problem, KEEP))


def uniform_variants(data: ProfileView, real: bool) -> tuple[Variant, ...]:
    """Returns for each scheme the variant that uses it, or else its weights alone, where it may and keeps the others.

    real: only where a kernel runs the scheme.
    """
    problem = formulate(data.evidence, {}, (), real=real)
    schemes = dict.fromkeys(name for names in problem.candidates for name in names if name != KEEP)
    variants = []
    for scheme in schemes:
        try:
            choice = uniform(problem, scheme, (str(weights_alone(parse_scheme(scheme))), KEEP))
        except ProblemError:  # a layer may take neither
            continue
        if scheme in choice.names.values():
            variants.append(variant_of(data, scheme, "uniform", choice))
    return tuple(variants)


def _errors(data: ProfileView, scheme_of: Mapping[str, str]) -> dict[str, float]:
    """Returns standard errors of the sums, with independent layers; metrics with unknown errors are left out."""
    losses = data.evidence.losses
    errors = {}
    for metric in data.evidence.metrics:
        stderrs = [losses.measurement(layer, s, metric).stderr for layer, s in scheme_of.items() if s != KEEP]
        error = math.sqrt(math.fsum(one * one for one in stderrs))
        if math.isfinite(error):
            errors[metric] = error
    return errors
