"""Where the choice is still open: the candidates that the numbers, as sure as they are, cannot tell from the chosen.

At the solver's prices every candidate has a regret: what taking it would cost more than its group's best one. The
choice between the two is open while the regret is below `Z` times what the difference of the two may be off.
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
GAP = 1e-3  # of the plan that is looked at


@dataclass(frozen=True)
class OpenChoice:
    """Two candidates of one group whose order is open. regret, error: in units of the objective."""

    group: str
    best: str
    other: str
    regret: float
    error: float


def contests(store: Profile, memory: str) -> list[OpenChoice]:
    """What is open at a memory budget, by quality and alignment alike, the most open first.

    Raises UserError for a budget that is none or that no plan meets, and for a profile that lacks measurements.
    """
    evidence = read_evidence(store)
    known = [name for name in FAMILIES if name in evidence.metrics.values()]
    if not known:
        return []
    try:
        problem = pose(evidence, Request(memory, objective=",".join(known), kernels="fake"), Effort(gap=GAP))
        found = solve(problem, Effort(gap=GAP))
    except InfeasibleError as error:
        raise UserError(str(error)) from None
    if found.choice is None:
        raise UserError(f"no plan fits {memory}: {found.stopped}; name another memory budget with --around")
    return _contests(problem, found.prices, _Errors.of(store, evidence, problem))


def pairs_of(
    evidence_groups: dict[str, tuple[str, ...]], open_: Sequence[OpenChoice], exact: frozenset[Pair]
) -> list[Pair]:
    """The estimated (layer, scheme) of the contests, each once, in their order."""
    wanted = [
        (layer, scheme)
        for contest in open_
        for scheme in (contest.other, contest.best)
        for layer in evidence_groups[contest.group]
    ]
    return [pair for pair in dict.fromkeys(wanted) if pair not in exact and pair[1] != KEEP]


def to_measure(store: Profile, memory: str, count: int) -> list[Pair]:
    """The next so many estimates that a measurement would do most for; none where nothing is open."""
    groups = groups_of(read_evidence(store))
    return pairs_of(groups, contests(store, memory), store.measured("exhaustive"))[:count]


def _contests(problem: Problem, prices: Sequence[float], errors: _Errors) -> list[OpenChoice]:
    reduced = problem.costs.astype(float).copy()
    for budget, price in zip(problem.budgets, prices, strict=False):
        reduced += float(price) * problem.column(budget.column).astype(float)
    reduced[~problem.allowed] = math.inf
    found = []
    for group, names, start in zip(problem.groups, problem.candidates, problem.offsets.tolist(), strict=False):
        regrets = reduced[start : start + len(names)]
        best = int(regrets.argmin())
        for place, name in enumerate(names):
            regret = float(regrets[place] - regrets[best])
            if place != best and math.isfinite(regret):
                error = errors.between(group, names[best], name)
                found += [OpenChoice(group, names[best], name, regret, error)] * (regret < Z * error)
    return sorted(found, key=lambda contest: contest.regret / contest.error)


@dataclass(frozen=True, eq=False)
class _Errors:
    """Standard errors of the difference in the objective that two schemes of a group make.

    weights: of each metric in the objective; layers: of each group; samples: of each estimated loss, by (layer,
    scheme, metric); readings: what those are of.
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
        """Of several metrics, and layers of one weight, errors add up instead of cancelling, on the safe side."""
        return sum(
            weight * self._of(layer, metric, (one, other))
            for metric, weight in self.weights.items() for layer in self.layers[group]
        )  # fmt: skip

    def _of(self, layer: str, metric: str, schemes: tuple[str, str]) -> float:
        """Where probes saw both on the same prompts, what their samples differ by tells more than two errors apart."""
        changed = [scheme for scheme in schemes if scheme != KEEP]
        seen = [self.samples[layer, scheme, metric] for scheme in changed if (layer, scheme, metric) in self.samples]
        if changed and len(seen) == len(changed):
            difference = (seen[0] - seen[1]) if len(seen) == 2 else seen[0]
            reading = self.readings[metric]
            return summarise(difference.tolist(), reading.strata, reading.clusters)[1]
        return math.hypot(*(_error(self.table.measurement(layer, scheme, metric)) for scheme in changed))


def _error(measurement: Measurement) -> float:
    """An unknown one counts as the loss itself."""
    return measurement.stderr if math.isfinite(measurement.stderr) else abs(measurement.mean)
