"""What a profile and a plan hold: for people as text, for programs as data."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitplan.planner.choice.published import plan_file
from bitplan.planner.choice.undecided import contests
from bitplan.planner.errors import UserError
from bitplan.planner.graph.layers import LayerGraph, from_json
from bitplan.planner.profiles.corrections import corrections_of
from bitplan.planner.profiles.profile import Cost, Profile, open_profile
from bitplan.planner.texts import plain, table
from bitplan.planner.units import show_bytes, show_milliseconds
from bitplan.planner.views.roles import RoleOfPlan, model_roles, model_text, plan_roles
from bitplan.planner.views.roles import plan_text as roles_text
from bitplan.plans.plan import Plan, load_plan
from bitplan.sensitivity.table import Measurement

STEP_NAMES = {"bytes": "MiB", "ms": "millisecond"}  # the steps of `recording.STEPS`
AROUND = "25%"  # memory of the plan by which undecided layers are told
_SHOWN = 5  # of those, and of pinned layers


@dataclass(frozen=True)
class Inspected:
    """What something holds. text: for people; facts: for programs; plan, graph: what a map of bits is drawn from."""

    text: str
    facts: Mapping[str, Any]
    plan: Plan | None = None
    graph: LayerGraph | None = None

    def to_json(self) -> dict[str, Any]:
        """What `json.dumps` takes."""
        return dict(self.facts)

    def __str__(self) -> str:
        return self.text


def mapped(found: Inspected) -> Callable[[], Any] | None:
    """What draws the bits of a plan, for whoever can print them."""
    plan = found.plan
    if plan is None:
        return None

    def draw() -> Any:
        from bitplan.planner.views.bitmap import bitmap_of

        return bitmap_of(plan, found.graph)

    return draw


def inspect_file(path: Path, profile: Path | None = None) -> Inspected:
    """A profile (an SQLite file) or else a plan, with its profile by role, too. Raises ProfileError, PlanError,
    UserError."""
    path = plan_file(path)
    try:
        with path.open("rb") as file:
            is_profile = file.read(6) == b"SQLite"
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; check the path") from None
    if is_profile and profile is not None:
        raise UserError(f"{path} is a profile itself; --profile goes with a plan")
    return inspect_profile(path) if is_profile else inspect_plan(load_plan(path), profile)


def inspect_plan(plan: Plan, profile: Path | None = None) -> Inspected:
    """Model, how the solver ended, predicted sums, and how many layers took each scheme; by its profile also each
    role's share. Raises UserError for a profile of another model."""
    if profile is None:
        return Inspected(_plan_text(plan), {"kind": "plan"} | plain(plan), plan)
    with open_profile(profile) as store:
        roles, graph = plan_roles(plan, store), from_json(store.graph())
    return Inspected(_plan_text(plan, roles), {"kind": "plan"} | plain(plan) | {"roles": plain(roles)}, plan, graph)


def _plan_text(plan: Plan, roles: Sequence[RoleOfPlan] = ()) -> str:
    total = plan.predictions.get("total", {})
    counts = Counter(plan.schemes.values())
    lines = [
        f"plan for {plan.model['name']} ({len(plan.schemes)} layers, fingerprint {plan.model['fingerprint'][:12]})",
        f"solver: {plan.solver['status']}" + _proof(plan),
        "budgets: "
        + (", ".join(f"{name} <= {_amount(name, limit)}" for name, limit in plan.budgets.items()) or "none"),
        "predicted: " + ", ".join(f"{name} {_amount(name, value)}" for name, value in total.items()),
        "schemes: " + ", ".join(f"{scheme} x {count}" for scheme, count in counts.most_common()),
    ]
    lines += _worth(plan)
    if pins := plan.solver.get("pins"):
        lines.append("pinned: " + _pinned(pins))
    if "confidence" in plan.solver:
        lines.append(f"confidence: planned with each loss at its upper bound of {plan.solver['confidence']:.4g}")
    if plan.simulated:
        lines.append(f"simulated: {len(plan.simulated)} layers have no real kernel; apply with --kernels fake")
    return "\n".join([*lines, *([roles_text(roles)] if roles else ())])


def _pinned(pins: Mapping[str, str]) -> str:
    """Layer by layer, or, where rules pinned many, how many to which scheme."""
    if len(pins) <= _SHOWN:
        return ", ".join(f"{layer} = {scheme}" for layer, scheme in pins.items())
    return ", ".join(f"{count} layers = {scheme}" for scheme, count in Counter(pins.values()).most_common())


def _proof(plan: Plan) -> str:
    if "bound" not in plan.solver:
        return ""
    return f" by {plan.solver['backend']}, objective {plan.solver['objective']:.6g}, bound {plan.solver['bound']:.6g}"


def _worth(plan: Plan) -> list[str]:
    """What binds: from what more of a budget was found to save, else from what the relaxation prices."""
    objective, lines = plan.solver.get("objective", 0.0), []
    for column, saved in plan.solver.get("worth", {}).items():
        share = f", {saved / objective:.2%} of it" if objective else ""
        more = f"one more {STEP_NAMES[column]} saves {saved:.3g} of the objective{share}"
        lines.append(
            f"{column} binds: {more}" if saved > 0 else f"{column} does not bind at one more {STEP_NAMES[column]}"
        )
    priced = [name for name, price in plan.solver.get("prices", {}).items() if price > 0]
    if priced and "worth" not in plan.solver:
        lines.append(f"priced by the relaxation: {', '.join(priced)}")
    return lines


def _amount(name: str, value: float) -> str:
    if name == "bytes":
        return f"{value:,} ({show_bytes(value)})"
    return show_milliseconds(value) if name == "ms" else f"{value:.4g}"


def inspect_profile(path: Path) -> Inspected:
    """What was measured, of which model, where losses came from, and what each scheme sums to in all layers. Raises
    ProfileError."""
    with open_profile(path) as store:
        header, costs, measured, measurements = store.header(), store.costs(), store.measured(), store.measurements()
        wanted = {(c.layer, c.scheme) for c in costs if c.scheme != "keep"}
        schemes = [_scheme_facts(measurements, costs, scheme) for scheme in store.schemes()]
        families, open_ = store.families(), _undecided(store)
        graph = from_json(store.graph()) if store.layers() else None
        known = certainty(store, open_)
    # costs name the candidates; a share of a profile may lack them
    counts = len(wanted & measured if wanted else measured), len(wanted) if wanted else None
    facts = {
        "kind": "profile", **header, "layers": _layer_facts(graph), "families": families,
        "measured": {"pairs": counts[0], "of": counts[1]}, "schemes": schemes,
        "losses_from": Counter(m.source for m in measurements), "roles": model_roles(graph) if graph else (),
        "not_planned": dict(graph.reasons) if graph else {}, "undecided": {"memory": AROUND, "layers": open_},
    }  # fmt: skip
    return Inspected("\n".join(_profile_lines(facts, graph, known)), plain(facts), None, graph)


def _profile_lines(facts: Mapping[str, Any], graph: LayerGraph | None, known: Sequence[str]) -> list[str]:
    model, settings, (pairs, of) = facts["model"], facts["settings"], facts["measured"].values()
    rows = [_scheme_row(each) for each in facts["schemes"]]
    return [
        f"profile of {model['name']} ({len(facts['layers'])} layers, fingerprint {model['fingerprint'][:12]})",
        f"measured: {pairs if of is None else f'{pairs} of {of}'} (layer, scheme), on {len(settings['prompts'])} "
        f"prompts, {settings['generation']['steps']} steps",
        *(layers_text(graph) if graph and "source" not in facts else ()),
        *known,
        *([f"by role:\n{model_text(facts['roles'])}"] * bool(facts["roles"])),
        "all layers at one scheme, sums:",
        table(rows),
    ]


def _layer_facts(graph: LayerGraph | None) -> dict[str, Any]:
    return {} if graph is None else {
        each.address: {"role": each.role, "kind": each.kind, "weight": each.weight, "macs": each.macs}
        for each in graph.layers
    }  # fmt: skip


def layers_text(graph: LayerGraph) -> list[str]:
    """How many layers there are of each kind, and which modules are no layers to plan, and why."""
    kinds = Counter(layer.kind for layer in graph.layers)
    lines = ["kinds: " + ", ".join(f"{kind} {count:,}" for kind, count in kinds.most_common())]
    reasons = dict(graph.reasons)
    alike: dict[str, list[str]] = {}
    for address in graph.unused:
        alike.setdefault(reasons.get(address, "the run never called it"), []).append(address)
    return lines + [
        f"not planned: {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "") + f": {why}"
        for why, names in alike.items()
    ]


def certainty(store: Profile, undecided: Sequence[str] | None) -> list[str]:
    """Where the losses came from, what checks showed, and which layers' order is undecided in a plan of `AROUND`."""
    counts = Counter(m.source for m in store.measurements())
    lines = ["losses from: " + ", ".join(f"{source} {count:,}" for source, count in counts.most_common())]
    for metric, fit in corrections_of(store).items():
        moved = f"moved by x{fit.factor(math.exp(fit.low)):.2f} (smallest) to x{fit.factor(math.exp(fit.high)):.2f}"
        said = moved if fit.applies else "left as they are"
        lines.append(f"{metric}: {fit.checks} checks scatter by x{math.exp(fit.scatter):.2f}, estimates {said}")
    if undecided is None:
        return lines
    more = f" and {len(undecided) - _SHOWN} more" if len(undecided) > _SHOWN else ""
    some = ", ".join(undecided[:_SHOWN]) + more
    told = f"{len(undecided)} layers, {some}" if undecided else "nothing"
    return [*lines, f"undecided at {AROUND} memory: {told}"]


def _undecided(store: Profile) -> list[str] | None:
    """Layers, the most open first; None where the profile is not finished, or there is no plan that small."""
    try:
        return list(dict.fromkeys(contest.group for contest in contests(store, AROUND)))
    except ValueError:
        return None


def _scheme_facts(measurements: Sequence[Measurement], costs: Sequence[Cost], scheme: str) -> dict[str, Any]:
    """Sums over the layers that may take it."""
    mine = [cost for cost in costs if cost.scheme == scheme]
    losses: Counter[str] = Counter()
    for m in measurements:
        losses[m.metric] += m.mean if m.scheme == scheme else 0  # type: ignore[assignment]
    return {
        "scheme": scheme, "layers": len(mine), "simulated": any(cost.simulated for cost in mine),
        "bytes": sum(cost.bytes for cost in mine), "ms": sum(cost.ms or 0 for cost in mine), "losses": dict(losses),
    }  # fmt: skip


def _scheme_row(facts: Mapping[str, Any]) -> dict[str, str]:
    row = {
        "scheme": facts["scheme"] + " (simulated)" * facts["simulated"],
        "layers": str(facts["layers"]),
        "bytes": show_bytes(facts["bytes"]),
        "ms": f"{facts['ms']:.4g}",
    }
    return row | {metric: f"{value:.4g}" for metric, value in facts["losses"].items()}
