"""The ways to a solution, as one ordered table, the best first. To add one: a file with `run`, a line here.

Every one certifies its choice in exact arithmetic and says what bound it has on all others.
"""

from __future__ import annotations

from bitplan.solvers.problem import ProblemError  # noqa: F401
from bitplan.solvers.strategies import exact, greedy, ilp, lagrangian, split
from bitplan.solvers.strategies.base import (
    Effort,  # noqa: F401
    Strategy,  # noqa: F401
)

__all__ = ["STRATEGIES", "Effort", "Strategy", "strategy_named"]


STRATEGIES = (
    Strategy("exact", "prices, repair, fixing, labels, and PuLP for what is left: proven", exact.run),
    Strategy("ilp", "the whole problem as one integer program for PuLP: proven, slow", ilp.run),
    Strategy("lagrangian", "the relaxation's prices and a repaired choice: a bound, no proof", lagrangian.run),
    Strategy("greedy", "the most budget for the least loss, step by step: no proof", greedy.run),
    Strategy("split", "two sets of groups, each by its own loss, sharing the first budget: no proof", split.run),
)


def strategy_named(name: str) -> Strategy:
    """The strategy of that name. Raises ProblemError."""
    for strategy in STRATEGIES:
        if strategy.name == name:
            return strategy
    raise ProblemError(f"there is no solver {name!r}; choose from {', '.join(s.name for s in STRATEGIES)}")
