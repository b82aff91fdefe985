"""From a profile and its solutions to what there is to see."""

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
from bitplan.plans.scheme import parse_scheme
from bitplan.sensitivity.table import FAMILIES
from bitplan.solvers.problem import Problem, ProblemError
from bitplan.solvers.solution import Choice, Solution, choice_of, uniform

_FLOAT_BITS = {"float32": 32}  # what is kept has 16 bits in every other type


@dataclass(frozen=True)
class ProfileView:
    """What is seen again and again of one profile: read once, by `know`."""

    model: Mapping[str, object]
    evidence: Evidence
    graph: LayerGraph

    @cached_property
    def problem(self) -> Problem:
        """All choices and columns, losses at their means; no objective, budgets or pins, and nothing forbidden."""
        return formulate(replace(self.evidence, z=0.0), {}, (), real=False)

    @cached_property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Group -> its layers."""
        return groups_of(self.evidence)

    @cached_property
    def places(self) -> dict[str, dict[str, int]]:
        """Layer -> scheme -> its place among the layer's options."""
        return {layer: {s: i for i, s in enumerate(names)} for layer, names in self.evidence.offered.items()}


def know(store: Profile, confidence: float | None = None) -> ProfileView:
    """Everything that is seen of a profile. Raises UserError where it is not finished."""
    return ProfileView(store.header()["model"], read_evidence(store, confidence), from_json(store.graph()))


def columns_of(known: ProfileView) -> tuple[Column, ...]:
    """Costs, then families, then metrics."""
    metrics, there = known.evidence.metrics, known.problem.columns
    costs = [Column(name, name, "") for name in COSTS]
    families = [Column(name, "", "") for name in FAMILIES if name in there]
    return (*costs, *families, *(Column(name, "", family) for name, family in metrics.items()))


def cells_of(known: ProfileView) -> tuple[Cell, ...]:
    """One cell a layer, in order of first execution."""
    layers = known.graph.by_address
    order = [layer for layer in layers if layer in known.evidence.offered]
    block = {layer: name for name, members in blocks_of(order).items() for layer in members}
    return tuple(_cell(known, layers[name], block[name]) for name in order)


def _cell(known: ProfileView, layer: Layer, block: str) -> Cell:
    evidence, name = known.evidence, layer.address
    options = tuple(_option(known, name, scheme) for scheme in evidence.offered[name])
    return Cell(name, layer.role, block, layer.kind, layer.weight, layer.macs, layer.call_count, options)


def _option(known: ProfileView, layer: str, scheme: str) -> Option:
    evidence, losses = known.evidence, {}
    for metric in () if scheme == KEEP else evidence.metrics:
        found = evidence.losses.measurement(layer, scheme, metric)
        losses[metric] = (found.mean, found.stderr if math.isfinite(found.stderr) else None)
    kept = _FLOAT_BITS.get(str(known.model.get("dtype", "")), 16)
    bits = kept if scheme == KEEP else parse_scheme(scheme).weight.bits
    pair = (layer, scheme)
    return Option(scheme, bits, evidence.size[pair], evidence.ms[pair], losses, pair not in evidence.simulated)


def variant_of(known: ProfileView, name: str, status: str, choice: Choice) -> Variant:
    """A choice as it is seen. choice: of any problem posed from the same profile."""
    scheme_of = {layer: choice.names[group] for group, layers in known.groups.items() for layer in layers}
    cells = [layer for layer in known.graph.by_address if layer in scheme_of]
    picks = tuple(known.places[layer][scheme_of[layer]] for layer in cells)
    flat = tuple(known.problem.index(group, choice.names[group]) for group in known.problem.groups)
    totals = dict(choice_of(known.problem, flat).totals)
    return Variant(name, status, picks, totals=totals, errors=_errors(known, scheme_of))


def solved(known: ProfileView, name: str, solution: Solution, limit: float | None = None) -> Variant:
    """A solution as it is seen, with or without a choice."""
    bound = solution.bound if math.isfinite(solution.bound) else None
    if solution.choice is None:
        return Variant(name, str(solution.status), limit=limit, bound=bound)
    seen = variant_of(known, name, str(solution.status), solution.choice)
    gap = solution.gap if math.isfinite(solution.gap) else None
    return replace(seen, limit=limit, objective=solution.objective, bound=bound, gap=gap)


def full_of(known: ProfileView) -> Variant:
    """Every layer kept."""
    return variant_of(known, FULL, FULL, uniform(known.problem, KEEP))


def uniforms_of(known: ProfileView, real: bool) -> tuple[Variant, ...]:
    """Each scheme wherever it may be taken, all else kept. real: where a kernel runs it."""
    problem = formulate(known.evidence, {}, (), real=real)
    schemes = dict.fromkeys(name for names in problem.candidates for name in names if name != KEEP)
    found = []
    for scheme in schemes:
        try:
            choice = uniform(problem, scheme, (KEEP,))
        except ProblemError:  # a layer that may take neither
            continue
        if scheme in choice.names.values():
            found.append(variant_of(known, scheme, "uniform", choice))
    return tuple(found)


def _errors(known: ProfileView, scheme_of: Mapping[str, str]) -> dict[str, float]:
    """Standard errors of the sums, the layers' taken as independent; without those that are not known."""
    losses = known.evidence.losses
    errors = {}
    for metric in known.evidence.metrics:
        all_of = [losses.measurement(layer, s, metric).stderr for layer, s in scheme_of.items() if s != KEEP]
        error = math.sqrt(math.fsum(one * one for one in all_of))
        if math.isfinite(error):
            errors[metric] = error
    return errors
