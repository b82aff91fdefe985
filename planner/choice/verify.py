"""A saved plan checked against its profile by `bitplan.solvers.certify`, which shares no code with what found it.

Weak duality makes the bound: the plan's own prices, in rational arithmetic. No solver runs unless a proof is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from bitplan.planner.choice.evidence import read_evidence
from bitplan.planner.choice.record import check_same_model, picks_of, predict, problem_of
from bitplan.planner.profiles.profile import Profile
from bitplan.plans.plan import Plan
from bitplan.solvers.certify import exact_total, lower_bound, violations
from bitplan.solvers.effort import Effort
from bitplan.solvers.problem import Picks, Problem
from bitplan.solvers.programs.backends import BACKENDS
from bitplan.solvers.solution import PROVEN
from bitplan.solvers.strategies import ilp

CLOSE = 1e-9  # relative: numbers that floating-point sums give in another order


@dataclass(frozen=True)
class Verdict:
    """What a check found: a sentence for each failure, none where the plan is right; notes: what holds."""

    failures: tuple[str, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """What `json.dumps` takes."""
        return {"holds": not self.failures, "failures": list(self.failures), "notes": list(self.notes)}

    def __str__(self) -> str:
        return "\n".join(self.failures or self.notes)


def check(plan: Plan, store: Profile, prove: Effort | None = None) -> Verdict:
    """Everything that the plan says of its choice. prove: also solve again, by the plain integer program. Raises
    UserError for another model's profile, ProblemError for columns that the profile does not have."""
    check_same_model(plan, store)
    evidence = read_evidence(store, plan.solver.get("confidence"))
    problem = problem_of(evidence, plan)
    picks, failures = picks_of(problem, evidence, plan)
    if failures:
        return Verdict(failures, ())
    objective = exact_objective(problem, picks)
    bound, proof = _certified(problem, plan, objective)
    simulated = tuple(a for a, s in plan.schemes.items() if (a, s) in evidence.simulated)
    failures = (
        *(violation.sentence for violation in violations(problem, picks)),
        *_wrong_sums(plan.predictions, predict(evidence, picks)),
        *(["its `simulated` layers are not those that no kernel ran"] if set(simulated) != set(plan.simulated) else []),
        *_wrong_claims(plan.solver, objective, bound),
    )
    notes: tuple[str, ...] = (_holds(problem, plan), f"objective {float(objective):.6g} ({_weighed(problem)}){proof}")
    if prove is not None and not failures:
        failed, note = _solved_again(problem, plan, objective, prove)
        failures, notes = failed, (*notes, note)
    return Verdict(failures, notes)


def exact_objective(problem: Problem, picks: Picks) -> Fraction:
    """The objective of a choice without any rounding."""
    return sum((Fraction(w) * exact_total(problem, name, picks) for name, w in problem.objective.items()), Fraction(0))


def _certified(problem: Problem, plan: Plan, objective: Fraction) -> tuple[Fraction | None, str]:
    """What the plan's prices prove, and the words for it."""
    prices = plan.solver.get("prices")
    if prices is None:
        return None, "; the plan carries no prices, so no bound is certified"
    bound = lower_bound(problem, [prices.get(budget.column, 0.0) for budget in problem.budgets])
    share = max(Fraction(0), (objective - bound) / objective) if objective else Fraction(0)
    text = f"; no plan is better by more than {_percent(share)} (weak duality, exact)"
    if plan.solver["status"] == "optimal":
        text += "; the solver's own proof says optimal"
    elif "gap" in plan.solver:
        text += f"; the solver's own bound says {_percent(Fraction(plan.solver['gap']))}"
    return bound, text


def _holds(problem: Problem, plan: Plan) -> str:
    pins = plan.solver.get("pins", {})
    among = "all schemes of the profile" if plan.simulated else "schemes that a kernel runs"
    facts = [f"{len(plan.schemes)} layers among {among}", f"{len(problem.ties)} ties"]
    facts += [f"{len(pins)} layers pinned"] * bool(pins)
    if "confidence" in plan.solver:
        facts.append(f"losses at their upper bounds of {plan.solver['confidence']:.4g} confidence")
    columns = ", ".join(budget.column for budget in problem.budgets)
    budgets = f"budgets hold exactly ({columns})" if columns else "there are no budgets"
    return f"{budgets}; {', '.join(facts)}; sums as predicted"


def _weighed(problem: Problem) -> str:
    return (
        " + ".join(name if weight == 1 else f"{weight:g} {name}" for name, weight in problem.objective.items()) or "0"
    )


def _wrong_sums(said: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    """Integers must agree exactly, other sums to what the order of adding leaves open."""
    yield from _differences("predictions.total", said.get("total", {}), found["total"])
    for part in ("blocks", "full") if "full" in said else ("blocks",):  # older plans lack the last
        blocks = said.get(part, {})
        if odd := set(blocks) ^ set(found[part]):
            yield f"predictions.{part}: {min(odd)} is missing or no block of this model"
        for block in blocks.keys() & found[part].keys():
            yield from _differences(f"predictions.{part}.{block}", blocks[block], found[part][block])


def _differences(place: str, said: Mapping[str, float], found: Mapping[str, float]) -> Iterator[str]:
    for name in dict.fromkeys((*said, *found)):
        if name not in said or name not in found:
            yield f"{place}.{name} is missing" if name in found else f"{place}.{name} is no column of the profile"
        elif not _same(said[name], found[name]):
            yield f"{place}.{name} is {said[name]!r}, and the sum is {found[name]!r}"


def _same(said: float, found: float) -> bool:
    if isinstance(found, int):
        return said == found
    return math.isclose(said, found, rel_tol=CLOSE, abs_tol=1e-300)


def _wrong_claims(solver: Mapping[str, Any], objective: Fraction, certified: Fraction | None) -> Iterator[str]:
    """What the plan says of its objective, held against the exact one and what is proven of it."""
    exact, status = float(objective), solver["status"]
    said, bound = solver.get("objective", exact), solver.get("bound", -math.inf)
    if not _same(said, exact):
        yield f"solver.objective is {said!r}, and the weighted sum is {exact!r}"
    if bound > exact + CLOSE * abs(exact):
        yield f"solver.bound {bound!r} is above the plan's own objective {exact!r}, so it is no bound"
    gap = max(0.0, (exact - bound) / exact) if exact and math.isfinite(bound) else 0.0
    if "gap" in solver and not abs(solver["gap"] - gap) <= CLOSE:
        yield f"solver.gap is {solver['gap']!r}, and objective and bound leave {gap!r}"
    if status == "optimal" and not ("bound" in solver and gap <= PROVEN + CLOSE):
        yield f"solver.status is optimal, and objective and bound leave a gap of {gap:.3g}"
    if certified is not None and float(certified) > exact + CLOSE * abs(exact):
        yield f"the certified bound {float(certified)!r} is above the objective {exact!r}: the plan is outside a budget"


def _solved_again(problem: Problem, plan: Plan, objective: Fraction, effort: Effort) -> tuple[tuple[str, ...], str]:
    """The optimum by the plain integer program, by another backend than the plan's where there is one."""
    others = [b.name for b in BACKENDS if b.name != plan.solver.get("backend") and b.missing() is None]
    backend = effort.backend or (others[0] if others else None)
    found = ilp.run(problem, Effort(effort.time_limit, effort.gap, backend))
    again = f"solved again as one integer program by {found.backend} in {found.seconds:.1f} s"
    if found.choice is None:
        return (), f"{again}: no choice found ({found.stopped}); nothing is proven by it, raise --time-limit"
    best, claimed = exact_objective(problem, found.picks), plan.solver.get("bound", -math.inf)
    if best < objective and float(best) < claimed - CLOSE * abs(claimed):
        return (f"{again}: a plan of objective {float(best)!r}, under the bound {claimed!r} that the plan claims",), ""
    share = max(Fraction(0), (objective - best) / objective) if objective else Fraction(0)
    least = min(found.bound, float(best))
    return (), f"{again}: its best is {float(best):.6g} (bound {least:.6g}), {_percent(share)} under the plan's"


def _percent(share: Fraction) -> str:
    """Per cent, rounded up to three digits: a gap is never told smaller than it is."""
    if share <= 0:
        return "0 %"
    value = float(share * 100)
    step = 10.0 ** (math.floor(math.log10(value)) - 2)
    return f"{math.ceil(value / step - 1e-9) * step:.3g} %"
