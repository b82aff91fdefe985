"""Shows the contents of a profile, a plan or a configuration, as text and as data. Imports no torch by itself."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitplan.planner.choice.open_choices import open_choices
from bitplan.planner.choice.published import plan_file
from bitplan.planner.choice.record import full_costs
from bitplan.planner.errors import UserError
from bitplan.planner.graph.layers import LayerGraph, from_json
from bitplan.planner.profiles.corrections import corrections_of
from bitplan.planner.profiles.profile import Cost, Profile, open_profile
from bitplan.planner.profiles.responses import PROBED, probed
from bitplan.planner.profiles.sizes import sizes_text
from bitplan.planner.profiles.speeds import speeds_text
from bitplan.planner.profiles.timings import steadied
from bitplan.planner.texts import plain, system_reason, table
from bitplan.planner.units import TIMES, amount_text, show_bytes, time_cell
from bitplan.planner.views.roles import RoleOfPlan, model_roles, model_text, plan_roles
from bitplan.planner.views.roles import plan_text as roles_text
from bitplan.plans.checks import printable
from bitplan.plans.plan import Plan, load_plan
from bitplan.sensitivity.table import Measurement

if TYPE_CHECKING:
    from bitplan.planner.outlines.outline import Size

STEP_NAMES = {"bytes": "MiB", "ms": "millisecond"}  # units of `bitplan.planner.choice.record.STEPS`
MEMORY = "25%"  # memory of the plan whose undecided layers are listed
_SHOWN = 5  # maximum number of undecided or pinned layers that are listed


@dataclass(frozen=True)
class Inspection:
    """The contents of a file.

    Attributes:
        text: the contents as text.
        facts: the contents as JSON values.
        plan: the plan, if the file is one.
        graph: the layers, if they are known.
    """

    text: str
    facts: Mapping[str, Any]
    plan: Plan | None = None
    graph: LayerGraph | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns data for `json.dumps`."""
        return dict(self.facts)

    def __str__(self) -> str:
        return self.text

    def drawing(self) -> Any:
        """Returns a map of the plan's bits that rich can print, or None without a plan."""
        from bitplan.planner.views.bitmap import bitmap_of

        return None if self.plan is None else bitmap_of(self.plan, self.graph)


def inspect_file(path: Path, profile: Path | None = None) -> Inspection:
    """Returns the contents of a profile (an SQLite file) or of a plan. profile: adds a table by role to a plan.

    Raises ProfileError, PlanError, UserError.
    """
    path = plan_file(path)
    try:
        is_profile = path.is_file() and _begins(path, b"SQLite")  # not of a pipe: what is read of it is gone
    except OSError as error:
        raise UserError(f"cannot read {path}: {system_reason(error)}; check the path") from None
    if is_profile and profile is not None:
        raise UserError(f"{path} is a profile itself; --profile goes with a plan")
    return inspect_profile(path) if is_profile else inspect_plan(load_plan(path), profile)


def _begins(path: Path, text: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(text)) == text


def inspect_config(path: str, names: Sequence[str], size: Size, schemes: Sequence[str]) -> Inspection:
    """Returns the layers, multiply-adds and bytes of the configuration at `path`. Raises UserError, SchemeError."""
    from bitplan.planner.outlines.examine import examine  # needs torch

    outline = examine(path, names, size, schemes)
    return Inspection(str(outline), plain(outline), None, outline.graph)


def inspect_plan(plan: Plan, profile: Path | None = None) -> Inspection:
    """Returns a plan's model, solver status, predicted sums and number of layers at each scheme.

    profile: adds a table by role. Raises UserError for a profile of another model.
    """
    if profile is None:
        return Inspection(_plan_text(plan), {"kind": "plan"} | plain(plan), plan)
    with open_profile(profile) as store:
        roles, graph = plan_roles(plan, store), from_json(store.graph())
        counted = (speeds_text(store), sizes_text(store))
    facts = {"kind": "plan"} | plain(plan) | {"roles": plain(roles)}
    return Inspection(_plan_text(plan, roles, counted), facts, plan, graph)


def _plan_text(plan: Plan, roles: Sequence[RoleOfPlan] = (), counted: Sequence[str] = ()) -> str:
    total, full = plan.predictions.get("total", {}), full_costs(plan)
    counts = Counter(plan.schemes.values())
    lines = [
        f"plan for {printable(plan.model['name'])} "
        f"({len(plan.schemes)} layers, fingerprint {plan.model['fingerprint'][:12]})",
        f"solver: {plan.solver['status']}" + _proof(plan),
        "budgets: "
        + (", ".join(f"{name} <= {amount_text(name, limit, full)}" for name, limit in plan.budgets.items()) or "none"),
        "predicted: " + ", ".join(f"{name} {amount_text(name, value, full)}" for name, value in total.items()),
        "schemes: " + ", ".join(f"{scheme} x {count}" for scheme, count in counts.most_common()),
    ]
    lines += [*_objective(plan), *_worth(plan)]
    if pins := plan.solver.get("pins"):
        lines.append("pinned: " + _pinned(pins))
    if "target" in plan.solver:
        lines.append(f"target: {plan.solver['target']}, with the bytes in which it holds the layers")
    if "confidence" in plan.solver:
        lines.append(f"confidence: planned with each loss at its upper bound of {plan.solver['confidence']:.4g}")
    if plan.simulated:
        lines.append(f"simulated: {len(plan.simulated)} layers have no real kernel; apply with --kernels fake")
    return "\n".join([*lines, *filter(None, counted), *([roles_text(roles)] if roles else ())])


def _objective(plan: Plan) -> list[str]:
    """Lists the weights of an objective of several columns, unless all are 1."""
    weights = {name: weight for name, weight in plan.solver.get("weights", {}).items() if weight}
    if len(weights) < 2 or set(weights.values()) == {1.0}:
        return []
    return ["objective: " + " + ".join(name if w == 1 else f"{w:.6g} {name}" for name, w in weights.items())]


def _pinned(pins: Mapping[str, str]) -> str:
    """Lists the pinned layers, or counts them by scheme where they are many."""
    if len(pins) <= _SHOWN:
        return ", ".join(f"{layer} = {scheme}" for layer, scheme in pins.items())
    return ", ".join(f"{count} layers = {scheme}" for scheme, count in Counter(pins.values()).most_common())


def _proof(plan: Plan) -> str:
    if "bound" not in plan.solver:
        return ""
    by = f" by {plan.solver['backend']}" if "backend" in plan.solver else ""
    known = [f"{name} {plan.solver[name]:.6g}" for name in ("objective", "bound") if name in plan.solver]
    return ", ".join([by, *known])


def _worth(plan: Plan) -> list[str]:
    """Returns the binding budgets, with what one more step of each saves where that was solved."""
    objective, lines = plan.solver.get("objective", 0.0), []
    for column, saved in plan.solver.get("worth", {}).items():
        share = f", {saved / objective:.2%} of it" if objective else ""
        step = STEP_NAMES.get(column, f"step of {column}")
        more = f"one more {step} saves {saved:.3g} of the objective{share}"
        lines.append(f"{column} binds: {more}" if saved > 0 else f"{column} does not bind at one more {step}")
    priced = [name for name, price in plan.solver.get("prices", {}).items() if price > 0]
    if priced and "worth" not in plan.solver:
        lines.append(f"priced by the relaxation: {', '.join(priced)}")
    return lines


def inspect_profile(path: Path) -> Inspection:
    """Returns a profile's model, layers, progress, sources of losses, and the sums of each scheme over all layers.

    Raises ProfileError.
    """
    with open_profile(path) as store:
        header, costs = store.header(), steadied(store.costs())
        measured, measurements = store.measured(), store.measurements()
        wanted = {(c.layer, c.scheme) for c in costs if c.scheme != "keep"}
        schemes = [_scheme_facts(measurements, costs, scheme) for scheme in store.schemes()]
        families, undecided = store.families(), _undecided(store)
        graph = from_json(store.graph()) if store.layers() else None
        sources = certainty(store, undecided)
        counted = (speeds_text(store, costs), *([sizes_text(store)] if graph else ()))
        prompts = len(header["settings"]["prompts"])
        done = probed(store).prompts if PROBED in store.baseline() else prompts
    # costs list the candidates; a part of a profile may have none
    counts = len(wanted & measured if wanted else measured), len(wanted) if wanted else None
    facts = {
        "kind": "profile", **header, "layers": _layer_facts(graph), "families": families,
        "measured": {"pairs": counts[0], "of": counts[1], "prompts": done}, "schemes": schemes,
        "losses_from": Counter(m.source for m in measurements), "roles": model_roles(graph) if graph else (),
        "not_planned": dict(graph.reasons) if graph else {}, "undecided": {"memory": MEMORY, "layers": undecided},
    }  # fmt: skip
    return Inspection("\n".join(_profile_lines(facts, graph, sources, counted)), plain(facts), None, graph)


def _profile_lines(
    facts: Mapping[str, Any], graph: LayerGraph | None, sources: Sequence[str], counted: Sequence[str]
) -> list[str]:
    model, settings, (pairs, of, done) = facts["model"], facts["settings"], facts["measured"].values()
    prompts = len(settings["prompts"]) if done == len(settings["prompts"]) else f"{done} of {len(settings['prompts'])}"
    rows, steps = [_scheme_row(each) for each in facts["schemes"]], settings.get("generation", {}).get("steps")
    return [
        f"profile of {model['name']} ({len(facts['layers'])} layers, fingerprint {model['fingerprint'][:12]})",
        f"measured: {pairs if of is None else f'{pairs} of {of}'} (layer, scheme), on {prompts} "
        f"prompts{'' if steps is None else f', {steps} steps'}",
        *((*layers_text(graph), *rare_text(graph)) if graph and "source" not in facts else ()),
        *sources,
        *filter(None, counted),
        *([f"by role:\n{model_text(facts['roles'])}"] * bool(facts["roles"])),
        "all layers at one scheme, sums:",
        table(rows),
    ]


def _layer_facts(graph: LayerGraph | None) -> dict[str, Any]:
    return {} if graph is None else {
        each.address: {"role": each.role, "kind": each.kind, "weight": each.weight, "macs": each.macs}
        | ({"conditions": [each.reached, each.runs]} if each.runs > 1 else {})
        for each in graph.layers
    }  # fmt: skip


def layers_text(graph: LayerGraph) -> list[str]:
    """Returns the number of layers of each kind, and the modules that are not planned, grouped by reason."""
    kinds = Counter(layer.kind for layer in graph.layers)
    lines = ["kinds: " + ", ".join(f"{kind} {count:,}" for kind, count in kinds.most_common())]
    reasons = dict(graph.reasons)
    by_reason: dict[str, list[str]] = {}
    for address in graph.unused:
        by_reason.setdefault(reasons.get(address, "the run never called it"), []).append(address)
    return lines + [
        f"not planned: {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "") + f": {why}"
        for why, names in by_reason.items()
    ]


def rare_text(graph: LayerGraph) -> list[str]:
    """Returns a line on the layers that some conditions alone run, the rarest first."""
    rare = sorted((layer for layer in graph.layers if layer.share), key=lambda layer: layer.reached / layer.runs)
    some = ", ".join(f"{layer.address} on {layer.share}" for layer in rare[:_SHOWN])
    more = f" and {len(rare) - _SHOWN} more" if len(rare) > _SHOWN else ""
    return [f"losses from few samples: {some}{more}; more prompts make them surer"] if rare else []


def certainty(store: Profile, undecided: Sequence[str] | None) -> list[str]:
    """Returns the sources of the losses, the results of checks, and the undecided layers of a plan of `MEMORY`."""
    counts = Counter(m.source for m in store.measurements())
    lines = ["losses from: " + ", ".join(f"{source} {count:,}" for source, count in counts.most_common())]
    for metric, fit in corrections_of(store).items():
        moved = f"moved by x{fit.factor(math.exp(fit.low)):.2f} (smallest) to x{fit.factor(math.exp(fit.high)):.2f}"
        effect = f"wrong: {fit.alarm}" if fit.alarm else moved if fit.applies else "left as they are"
        lines.append(f"{metric}: {fit.checks} checks scatter by x{math.exp(fit.scatter):.2f}, estimates {effect}")
    if undecided is None:
        return lines
    more = f" and {len(undecided) - _SHOWN} more" if len(undecided) > _SHOWN else ""
    some = ", ".join(undecided[:_SHOWN]) + more
    summary = f"{len(undecided)} layers, {some}" if undecided else "nothing"
    return [*lines, f"undecided at {MEMORY} memory: {summary}"]


def _undecided(store: Profile) -> list[str] | None:
    """Returns the undecided layers, the least certain first; None where the profile is incomplete or no plan is that
    small."""
    try:
        return list(dict.fromkeys(contest.group for contest in open_choices(store, MEMORY)))
    except ValueError:
        return None


def _scheme_facts(measurements: Sequence[Measurement], costs: Sequence[Cost], scheme: str) -> dict[str, Any]:
    """Returns the sums of a scheme over the layers that may take it."""
    own = [cost for cost in costs if cost.scheme == scheme]
    full = {cost.layer: cost.ms or 0 for cost in costs if cost.scheme == "keep"}
    losses: Counter[str] = Counter()
    for m in measurements:
        losses[m.metric] += m.mean if m.scheme == scheme else 0  # type: ignore[assignment]
    return {
        "scheme": scheme, "layers": len(own), "simulated": any(cost.simulated for cost in own),
        "bytes": sum(cost.bytes for cost in own), "ms": sum(cost.ms or 0 for cost in own),
        "full_ms": sum(full.get(cost.layer, 0) for cost in own), "losses": dict(losses),
    }  # fmt: skip


def _scheme_row(facts: Mapping[str, Any]) -> dict[str, str]:
    row = {
        "scheme": facts["scheme"] + " (simulated)" * facts["simulated"],
        "layers": str(facts["layers"]),
        "bytes": show_bytes(facts["bytes"]),
        TIMES: time_cell(facts["ms"], facts["full_ms"]),
    }
    return row | {metric: f"{value:.4g}" for metric, value in facts["losses"].items()}
