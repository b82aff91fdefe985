"""Find the open choices: candidates that measurement errors do not separate from the best one of their group.

At the solver's prices each candidate has a regret: its extra cost over the best candidate of its group. The choice
between the two is open while the regret is below `Z` standard errors of their difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bitplan.planner.choice.evidence import KEEP, Evidence, groups_of, members_of, read_evidence, scale_of
from bitplan.planner.choice.limits import pose
from bitplan.planner.choice.request import Request
from bitplan.planner.errors import InfeasibleError, UserError
from bitplan.planner.profiles.profile import Pair, Profile
from bitplan.planner.profiles.responses import probed, responses_of
from bitplan.sensitivity.responses import Reading, samples_of
from bitplan.sensitivity.table import FAMILIES, LossTable, Measurement, summarise
from bitplan.solvers.effort import Effort
from bitplan.solvers.problem import Problem
from bitplan.solvers.solve import solve

Z = 1.64  # standard errors: 9 in 10 of normal differences are closer
GAP = 1e-3  # relative gap of the plan whose prices are used


@dataclass(frozen=True)
class OpenChoice:
    """Two candidates of one group whose order is uncertain.

    Attributes:
        group: the name of the group.
        best, other: the candidates.
        regret: how much more the other costs, in units of the objective.
        error: the standard error of that difference.
    """

    group: str
    best: str
    other: str
    regret: float
    error: float


def open_choices(store: Profile, memory: str) -> list[OpenChoice]:
    """Return the open choices at a memory budget, by quality and alignment, the most uncertain first.

    Raises UserError for an invalid budget, one that no plan meets, or a profile that is not finished.
    """
    evidence = read_evidence(store)
    families = [name for name in FAMILIES if name in evidence.metrics.values()]
    if not families:
        return []
    try:
        problem = pose(evidence, Request(memory, objective=",".join(families), kernels="fake"), Effort(gap=GAP))
        solution = solve(problem, Effort(gap=GAP))
    except InfeasibleError as error:
        raise UserError(str(error)) from None
    if solution.choice is None:
        raise UserError(f"no plan fits {memory}: {solution.stopped}; name another memory budget with --around")
    return _open_choices(problem, solution.prices, _Errors.of(store, evidence, problem))


def pairs_of(
    groups: Mapping[str, tuple[str, ...]], choices: Sequence[OpenChoice], exact: frozenset[Pair]
) -> list[Pair]:
    """Return the (layer, scheme) of the open choices that were only estimated, each once, in the order of the choices.

    Args:
        groups: group -> layers.
        choices: the open choices.
        exact: the pairs that were measured exhaustively.
    """
    pairs = [
        (layer, scheme)
        for choice in choices
        for scheme in (choice.other, choice.best)
        for layer in groups[choice.group]
    ]
    return [pair for pair in dict.fromkeys(pairs) if pair not in exact and pair[1] != KEEP]


def to_measure(store: Profile, memory: str, count: int) -> list[Pair]:
    """Return up to `count` pairs whose exhaustive measurement would help most; empty if no choice is open."""
    groups = groups_of(read_evidence(store))
    return pairs_of(groups, open_choices(store, memory), store.measured("exhaustive"))[:count]


def _open_choices(problem: Problem, prices: Sequence[float], errors: _Errors) -> list[OpenChoice]:
    reduced = problem.costs.astype(float).copy()
    for budget, price in zip(problem.budgets, prices, strict=False):
        reduced += float(price) * problem.column(budget.column).astype(float)
    reduced[~problem.allowed] = math.inf
    choices = []
    for group, names, start in zip(problem.groups, problem.candidates, problem.offsets.tolist(), strict=False):
        regrets = reduced[start : start + len(names)]
        best = int(regrets.argmin())
        for place, name in enumerate(names):
            regret = float(regrets[place] - regrets[best])
            if place != best and math.isfinite(regret):
                error = errors.between(group, names[best], name)
                choices += [OpenChoice(group, names[best], name, regret, error)] * (regret < Z * error)
    return sorted(choices, key=lambda choice: choice.regret / choice.error)


@dataclass(frozen=True, eq=False)
class _Errors:
    """Standard errors of the difference in the objective between two schemes of a group.

    Attributes:
        weights: metric -> weight in the objective.
        layers: group -> layers.
        table: the measurements.
        samples: (layer, scheme, metric) -> samples of an estimated loss.
        readings: metric -> how responses become losses.
    """

    weights: Mapping[str, float]
    layers: Mapping[str, tuple[str, ...]]
    table: LossTable
    samples: Mapping[tuple[str, str, str], np.ndarray]
    readings: Mapping[str, Reading]

    @classmethod
    def of(cls, store: Profile, evidence: Evidence, problem: Problem) -> _Errors:
        readings = probed(store).readings
        samples = {key: samples_of(readings[key[2]], sums) for key, sums in responses_of(store).items()}
        weights = {
            metric: problem.objective.get(family, 0.0) / (len(members) * scale_of(evidence, metric))
            for family, members in ((name, members_of(evidence, name)) for name in FAMILIES)
            for metric in members
        }
        return cls(weights, groups_of(evidence), evidence.losses, samples, readings)

    def between(self, group: str, one: str, other: str) -> float:
        """Return the standard error; those of several metrics and layers are added, which is conservative."""
        return sum(
            weight * self._of(layer, metric, (one, other))
            for metric, weight in self.weights.items() for layer in self.layers[group]
        )  # fmt: skip

    def _of(self, layer: str, metric: str, schemes: tuple[str, str]) -> float:
        """Return the error of one loss; paired samples, if available, give a smaller one."""
        changed = [scheme for scheme in schemes if scheme != KEEP]
        samples = [self.samples[layer, scheme, metric] for scheme in changed if (layer, scheme, metric) in self.samples]
        if changed and len(samples) == len(changed):
            difference = (samples[0] - samples[1]) if len(samples) == 2 else samples[0]
            reading = self.readings[metric]
            return summarise(difference.tolist(), reading.strata, reading.clusters)[1]
        return math.hypot(*(_error(self.table.measurement(layer, scheme, metric)) for scheme in changed))


def _error(measurement: Measurement) -> float:
    """Return the standard error; an unknown one counts as the loss itself."""
    return measurement.stderr if math.isfinite(measurement.stderr) else abs(measurement.mean)
