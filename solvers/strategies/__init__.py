"""The table of strategies that solve a problem, the preferred one first.

To add a strategy: a file with `run`, and a line here. Every strategy certifies its choice in exact arithmetic and
reports a lower bound on all others.
"""

from __future__ import annotations

from bitplan.solvers.problem import ProblemError
from bitplan.solvers.solve import solve
from bitplan.solvers.strategies import greedy, ilp, lagrangian, split
from bitplan.solvers.strategies.base import Strategy

STRATEGIES = (
    Strategy("exact", "prices, repair, fixing, labelling, and PuLP for the rest: proven", solve),
    Strategy("ilp", "the whole problem as one integer program for PuLP: proven, slow", ilp.run),
    Strategy("lagrangian", "the relaxation's prices and a repaired choice: a bound, no proof", lagrangian.run),
    Strategy("greedy", "the most budget for the least loss, step by step: no proof", greedy.run),
    Strategy("split", "two sets of groups, each by its own loss, sharing the first budget: no proof", split.run),
)


def strategy_named(name: str) -> Strategy:
    """Return the strategy of that name. Raises ProblemError."""
    for strategy in STRATEGIES:
        if strategy.name == name:
            return strategy
    raise ProblemError(f"there is no solver {name!r}; choose from {', '.join(s.name for s in STRATEGIES)}")
