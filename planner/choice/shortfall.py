"""Tells why no plan meets the budgets: what the least sums are made of, and which budgets would be met. No torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial

from bitplan.planner.choice.evidence import KEEP
from bitplan.planner.choice.request import PREFIX
from bitplan.planner.graph.layers import UNKNOWN
from bitplan.planner.units import COSTS, SHOW, beside_full
from bitplan.solvers.effort import Effort
from bitplan.solvers.problem import Problem
from bitplan.solvers.questions.infeasibility import Contribution, Explanation, LeastSum, Show, explain, message

_SHOWN = 3  # kinds of layers, and layers that cannot take less, that are named


def shortfall(problem: Problem, effort: Effort, roles: Mapping[str, str]) -> str:
    """Return why the problem has no solution and which budgets would have one, as one line.

    roles: layer -> role, by which layers are summed up; where there are none, by scheme.
    """
    return told(problem, explain(problem, effort, named=len(problem.groups)), roles)


def told(problem: Problem, explanation: Explanation, roles: Mapping[str, str]) -> str:
    """Return the same for an explanation with all contributions."""
    full = {name: _full(problem, name) for name in COSTS}
    above = [least for least in explanation.least_sums if not least.within]
    show: Show = {**SHOW, "ms": partial(beside_full, full=full["ms"])}
    if not above:
        return f"{message(explanation, show)}; raise the budget or allow more"
    return "; ".join(_above(least, full.get(least.column), show, roles) for least in above)


def _full(problem: Problem, column: str) -> float:
    """Return the column's sum in full precision."""
    keeps = [int(start) + names.index(KEEP) for start, names in zip(problem.offsets, problem.candidates, strict=False)
             if KEEP in names]  # fmt: skip
    return float(problem.column(column)[keeps].sum())


def _above(least: LeastSum, full: float | None, show: Show, roles: Mapping[str, str]) -> str:
    text = show.get(least.column, "{:.6g}".format)
    limit = SHOW.get(least.column, text)(least.limit)
    share = f" ({_percent(least.smallest, full)} of full precision)" if full else ""
    smallest = f"{text(least.smallest)}{share if least.column == 'bytes' else ''}"
    line = f"{least.column} can get no smaller than {smallest}, above the budget of {limit}"
    parts = [f"{line}: most is in {_kinds(least.contributions, roles)}"] if least.contributions else [line]
    if stuck := [each for each in least.contributions if each.excess > 0]:
        names = ", ".join(f"{each.group} ({each.candidate}, {text(each.value)})" for each in stuck[:_SHOWN])
        more = f" and {len(stuck) - _SHOWN} more" if len(stuck) > _SHOWN else ""
        parts.append(f"{names}{more} cannot take less, by a pin, a tie or for want of a kernel")
    enough = _percent(least.smallest, full) if full else text(least.smallest)
    return "; ".join([*parts, f"raise the budget to at least {enough}"])


def _kinds(contributions: Sequence[Contribution], roles: Mapping[str, str]) -> str:
    """Return the kinds of layers that hold most, with their shares: roles, else schemes."""
    known = any(role != UNKNOWN for role in roles.values())
    shares: Counter[str] = Counter()
    for each in contributions:
        kind = f"{PREFIX}{roles.get(each.group, UNKNOWN)}" if known else f"layers at {each.candidate}"
        shares[kind] += each.share  # type: ignore[assignment]
    return ", ".join(f"{kind} ({100 * share:.0f} %)" for kind, share in shares.most_common(_SHOWN))


def _percent(value: float, full: float) -> str:
    """Return a share that a budget can be given as, rounded up."""
    return f"{math.ceil(value / full * 1e4) / 100:g}%"
