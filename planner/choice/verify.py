"""Checks a saved plan against its profile with `bitplan.solvers.certify`, which shares no code with the solver.

The bound follows from the plan's own prices by weak duality, in rational arithmetic. A solver runs only on request.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from bitplan.planner.choice.evidence import Evidence, whole
from bitplan.planner.choice.record import check_same_model, evidence_of, picks_of, predict, problem_of
from bitplan.planner.profiles.profile import Profile
from bitplan.planner.units import beside_full, show_bytes
from bitplan.plans.plan import Plan
from bitplan.solvers.certify import exact_total, lower_bound, violations
from bitplan.solvers.effort import Effort
from bitplan.solvers.problem import Picks, Problem
from bitplan.solvers.programs.backends import BACKENDS
from bitplan.solvers.solution import PROVEN
from bitplan.solvers.strategies import ilp

SMALLEST = 1e-300  # the smallest percentage that is printed as a number
CLOSE = 1e-9  # relative difference of floating-point sums in another order


@dataclass(frozen=True)
class Verification:
    """The result of a check.

    Attributes:
        failures: one sentence each; empty if the plan is correct.
        notes: what holds.
    """

    failures: tuple[str, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the result for JSON."""
        return {"holds": not self.failures, "failures": list(self.failures), "notes": list(self.notes)}

    def __str__(self) -> str:
        return "\n".join(self.failures or self.notes)


def check(plan: Plan, store: Profile, prove: Effort | None = None) -> Verification:
    """Check every statement of the plan about its choice.

    prove: the effort for solving again by the plain integer program; None does not. Raises UserError for a profile of
    another model, and ProblemError for columns that are not in the profile.
    """
    check_same_model(plan, store)
    evidence = evidence_of(plan, store)
    problem = problem_of(evidence, plan)
    picks, failures = picks_of(problem, evidence, plan)
    if failures:
        return Verification(failures, ())
    objective = exact_objective(problem, picks)
    bound, proof = _certified(problem, plan, objective)
    simulated = tuple(a for a, s in plan.schemes.items() if (a, s) in evidence.simulated)
    failures = (
        *(violation.sentence for violation in violations(problem, picks)),
        *_wrong_sums(plan.predictions, sums := predict(evidence, picks)),
        *(["its `simulated` layers are not those that no kernel ran"] if set(simulated) != set(plan.simulated) else []),
        *_wrong_claims(plan.solver, objective, bound),
    )
    proven = f"objective {float(objective):.6g} ({_weighed(problem)}){proof}"
    notes: tuple[str, ...] = (_holds(problem, plan), proven, _costs(sums["total"], evidence))
    if prove is not None and not failures:
        failed, note = _solved_again(problem, plan, objective, prove)
        failures, notes = failed, (*notes, note)
    return Verification(failures, notes)


def exact_objective(problem: Problem, picks: Picks) -> Fraction:
    """Return the objective of a choice without rounding."""
    return sum((Fraction(w) * exact_total(problem, name, picks) for name, w in problem.objective.items()), Fraction(0))


def _certified(problem: Problem, plan: Plan, objective: Fraction) -> tuple[Fraction | None, str]:
    """Return the bound that the plan's prices prove, and a sentence about it."""
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
    among += f" and {plan.solver['target']} can load" if "target" in plan.solver else ""
    facts = [f"{len(plan.schemes)} layers among {among}", f"{len(problem.ties)} ties"]
    facts += [f"{len(pins)} layers pinned"] * bool(pins)
    if "confidence" in plan.solver:
        facts.append(f"losses at their upper bounds of {plan.solver['confidence']:.4g} confidence")
    columns = ", ".join(budget.column for budget in problem.budgets)
    budgets = f"budgets hold exactly ({columns})" if columns else "there are no budgets"
    return f"{budgets}; {', '.join(facts)}; sums as predicted"


def _costs(total: Mapping[str, float], evidence: Evidence) -> str:
    """Return the plan's costs beside those of full precision."""
    full = whole(evidence)
    size = f"{show_bytes(total['bytes'])} of full precision's {show_bytes(full['bytes'])}"
    return f"the planned layers: {size}, {beside_full(total['ms'], full['ms'])}"


def _weighed(problem: Problem) -> str:
    return (
        " + ".join(name if weight == 1 else f"{weight:g} {name}" for name, weight in problem.objective.items()) or "0"
    )


def _wrong_sums(stated: Mapping[str, Any], computed: Mapping[str, Any]) -> Iterator[str]:
    """Compare sums: integers exactly, others up to the order of addition."""
    yield from _differences("predictions.total", stated.get("total", {}), computed["total"])
    for part in ("blocks", "full") if "full" in stated else ("blocks",):  # older plans lack the last
        blocks = stated.get(part, {})
        if odd := set(blocks) ^ set(computed[part]):
            yield f"predictions.{part}: {min(odd)} is missing or not a block of this model"
        for block in blocks.keys() & computed[part].keys():
            yield from _differences(f"predictions.{part}.{block}", blocks[block], computed[part][block])


def _differences(place: str, stated: Mapping[str, float], computed: Mapping[str, float]) -> Iterator[str]:
    for name in dict.fromkeys((*stated, *computed)):
        if name not in stated or name not in computed:
            yield f"{place}.{name} is missing" if name in computed else f"{place}.{name} is not a column of the profile"
        elif not _same(stated[name], computed[name]):
            yield f"{place}.{name} is {stated[name]!r}, and the sum is {computed[name]!r}"


def _same(stated: float, computed: float) -> bool:
    if isinstance(computed, int):
        return stated == computed
    return math.isclose(stated, computed, rel_tol=CLOSE, abs_tol=1e-300)


def _wrong_claims(solver: Mapping[str, Any], objective: Fraction, certified: Fraction | None) -> Iterator[str]:
    """Compare the plan's statements about its objective with the exact objective and the certified bound."""
    exact, status = float(objective), solver["status"]
    stated, bound = solver.get("objective", exact), solver.get("bound", -math.inf)
    if not _same(stated, exact):
        yield f"solver.objective is {stated!r}, and the weighted sum is {exact!r}"
    if bound > exact + CLOSE * abs(exact):
        yield f"solver.bound {bound!r} is above the plan's own objective {exact!r}, so it is not a bound"
    gap = max(0.0, (exact - bound) / exact) if exact and math.isfinite(bound) else 0.0
    if "gap" in solver and not abs(solver["gap"] - gap) <= CLOSE:
        yield f"solver.gap is {solver['gap']!r}, and objective and bound leave {gap!r}"
    if status == "optimal" and not ("bound" in solver and gap <= PROVEN + CLOSE):
        yield f"solver.status is optimal, and objective and bound leave a gap of {gap:.3g}"
    if certified is not None and float(certified) > exact + CLOSE * abs(exact):
        yield f"the certified bound {float(certified)!r} is above the objective {exact!r}: the plan is outside a budget"


def _solved_again(problem: Problem, plan: Plan, objective: Fraction, effort: Effort) -> tuple[tuple[str, ...], str]:
    """Solve by the plain integer program, with another backend than the plan's if there is one."""
    others = [b.name for b in BACKENDS if b.name != plan.solver.get("backend") and b.missing() is None]
    backend = effort.backend or (others[0] if others else None)
    solution = ilp.run(problem, Effort(effort.time_limit, effort.gap, backend))
    again = f"solved again as one integer program by {solution.backend} in {solution.seconds:.1f} s"
    if solution.choice is None:
        return (), f"{again}: no choice found ({solution.stopped}); nothing is proven by it, raise --time-limit"
    best, claimed = exact_objective(problem, solution.picks), plan.solver.get("bound", -math.inf)
    if best < objective and float(best) < claimed - CLOSE * abs(claimed):
        return (f"{again}: a plan of objective {float(best)!r}, under the bound {claimed!r} that the plan claims",), ""
    share = max(Fraction(0), (objective - best) / objective) if objective else Fraction(0)
    least = min(solution.bound, float(best))
    return (), f"{again}: its best is {float(best):.6g} (bound {least:.6g}), {_percent(share)} under the plan's"


def _percent(share: Fraction) -> str:
    """Return per cent, rounded up to three digits, so that a gap is never understated."""
    if share <= 0:
        return "0 %"
    value = float(share * 100)
    if value < SMALLEST:
        return f"less than {SMALLEST:g} %"
    step = 10.0 ** (math.floor(math.log10(value)) - 2)
    return f"{math.ceil(value / step - 1e-9) * step:.3g} %"
