"""Explains the scheme of a layer by the cost of each other one, with all other layers chosen again. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bitplan.planner.choice.evidence import Evidence, groups_of, shown_columns, whole
from bitplan.planner.choice.record import check_same_model, evidence_of, picks_of, problem_of
from bitplan.planner.errors import UserError
from bitplan.planner.graph.layers import Layer, from_json
from bitplan.planner.graph.naming import layer_named
from bitplan.planner.profiles.profile import Profile
from bitplan.planner.targets import target_named
from bitplan.planner.targets.base import why
from bitplan.planner.texts import table
from bitplan.planner.units import SHOW, TIMES, time_cell
from bitplan.plans.plan import Plan
from bitplan.plans.scheme import parse_scheme
from bitplan.solvers.effort import Effort
from bitplan.solvers.questions.alternatives import Alternative, alternatives
from bitplan.solvers.solution import choice_of

_EQUAL = 1e-9  # share of the objective within which two sums are equal


@dataclass(frozen=True)
class LayerExplanation:
    """The alternatives of one layer of a plan.

    Attributes:
        layer: its address.
        layers: the layers that must take the same scheme, itself included.
        scheme: its scheme in the plan.
        objective: the plan's objective.
        pinned: whether the scheme was pinned.
        alternatives: every scheme that it may take.
        columns: the columns of the table.
        share: on how many conditions the layer's losses rest; empty if they are all.
        target: the tool that the plan is made for, if any.
        ruled_out: scheme -> why the target cannot load it in this layer.
        full_ms: milliseconds of all layers in full precision.
    """

    layer: str
    layers: tuple[str, ...]
    scheme: str
    objective: float
    pinned: bool
    alternatives: tuple[Alternative, ...]
    columns: tuple[str, ...]
    share: str = ""
    target: str | None = None
    ruled_out: Mapping[str, str] = field(default_factory=dict)
    full_ms: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the explanation for JSON."""
        record = {name: getattr(self, name) for name in ("layer", "layers", "scheme", "objective", "pinned")}
        record |= {"share": self.share} if self.share else {}
        record |= {"target": self.target, "ruled_out": dict(self.ruled_out)} if self.target else {}
        return record | {"alternatives": [_alternative(each) for each in self.alternatives]}

    def __str__(self) -> str:
        together = f" (with {', '.join(a for a in self.layers if a != self.layer)})" if len(self.layers) > 1 else ""
        pinned = ", as it was pinned" if self.pinned else ""
        lines = [
            f"{self.layer}{together} takes {self.scheme}{pinned}; with each scheme forced and the others chosen again:"
        ]
        lines += [f"its losses rest on few samples: it runs on {self.share}"] if self.share else []
        rows = [_row(self, each) for each in self.alternatives]
        return "\n".join([*lines, table(rows), *_conclusions(self), *_ruled_out(self)])


def explain_layer(plan: Plan, store: Profile, layer: str, effort: Effort) -> LayerExplanation:
    """Return the alternatives of one layer within the plan's own budgets.

    layer: its address, or a block or pattern that stands for it alone. Raises UserError for an unknown layer, a profile
    of another model, or a plan with schemes unknown to the profile.
    """
    check_same_model(plan, store)
    layer = layer_named(layer, plan.schemes)
    evidence = evidence_of(plan, store)
    problem = problem_of(evidence, plan)
    picks, wrong = picks_of(problem, evidence, plan)
    if wrong:
        raise UserError(f"{wrong[0]}; solve again, or see `bitplan verify`")
    group, layers = next((group, layers) for group, layers in groups_of(evidence).items() if layer in layers)
    choice = choice_of(problem, picks)
    others = tuple(alternatives(problem, choice, group, effort))
    pinned = group in plan.solver.get("pins", {})
    facts = from_json(store.graph()).by_address[layer]
    return LayerExplanation(
        layer, layers, plan.schemes[layer], choice.objective, pinned, others, shown_columns(evidence), facts.share,
        evidence.target, _reasons(evidence, facts), whole(evidence)["ms"],
    )  # fmt: skip


def _reasons(evidence: Evidence, layer: Layer) -> dict[str, str]:
    """Return scheme -> why the target cannot load it in the layer, of the profile's schemes and the target's menu."""
    if evidence.target is None:
        return {}
    target = target_named(evidence.target)
    of_menu = {scheme: why(target, parse_scheme(scheme), layer) for scheme in target.menu}
    of_profile = {scheme: reason for (one, scheme), reason in evidence.ruled_out.items() if one == layer.address}
    return of_profile | {scheme: reason for scheme, reason in of_menu.items() if reason and scheme not in of_profile}


def _conclusions(explanation: LayerExplanation) -> list[str]:
    """Say which other schemes are as good, so that nothing speaks for the chosen one, and which are better."""
    tolerance = _EQUAL * abs(explanation.objective)
    others = {each.candidate: each.cost for each in explanation.alternatives if each.cost is not None}
    others.pop(explanation.scheme, None)
    equal = [name for name, cost in others.items() if abs(cost) <= tolerance]
    better = [name for name, cost in others.items() if cost < -tolerance]
    return [
        *[f"{', '.join(equal)} would be as good: by this objective nothing speaks for {explanation.scheme}"]
        * bool(equal),
        *[f"{', '.join(better)} would be better: the plan is not the best; solve again with more --time-limit"]
        * bool(better),
    ]


def _ruled_out(explanation: LayerExplanation) -> list[str]:
    """Say which schemes the target cannot load, and why: one line a reason."""
    by_reason: dict[str, list[str]] = {}
    for scheme, reason in explanation.ruled_out.items():
        by_reason.setdefault(reason, []).append(scheme)
    return [f"{explanation.target} cannot load {', '.join(schemes)}: {reason}" for reason, schemes in by_reason.items()]


def _row(explanation: LayerExplanation, each: Alternative) -> dict[str, str]:
    chosen = each.candidate == explanation.scheme
    row = {"scheme": each.candidate + " (chosen)" * chosen}
    if each.cost is None:
        return row | {"objective": f"no plan: {each.solution.status}"}
    row["objective"] = f"{each.solution.objective:.6g}"
    row["costs"] = f"{each.cost:+.3g}" if each.cost else "0"
    share = each.cost / explanation.objective if explanation.objective else math.nan
    row["of the plan's"] = f"{share:+.2%}" if math.isfinite(share) else "-"
    totals = {name: each.solution.totals[name] for name in explanation.columns if name in each.solution.totals}
    for name, value in totals.items():
        timed = {TIMES: time_cell(value, explanation.full_ms)}
        row |= timed if name == "ms" else {name: SHOW.get(name, "{:.4g}".format)(value)}
    return row | {"others that move": str(len(each.moved))}


def _alternative(each: Alternative) -> dict[str, Any]:
    """Return the alternative for JSON; values are None if no plan has that scheme."""
    solution = each.solution
    existing = None if each.cost is None else solution
    return {
        "scheme": each.candidate, "status": str(solution.status), "objective": existing and existing.objective,
        "costs": each.cost, "totals": existing and dict(existing.totals), "moved": list(each.moved),
    }  # fmt: skip
