"""Decide from a small sample of new measurements whether plans of an old profile are still good. Imports no torch.

For each group, the candidates that some optimal plan can contain lie on the lower convex hull of loss over bytes. The
edges of all hulls, sorted by the loss that they save per byte, give the optimal plans of the relaxation: each is a
prefix of that order. A fine-tune can only harm a plan by changing the order; a factor common to all losses does not.

The sample gives ratios new / old of losses. Their scatter beyond the measurement errors is drawn for the groups outside
the sample, and the old plans are compared with the best plans for the losses so changed. The difference is their
**regret**; a bootstrap of the sample gives its interval, and the interval gives the verdict.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitplan.solvers.problem import Problem

KEEP = "keep"  # name of the full-precision candidate; `bitplan.solvers` knows no other scheme

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
HOLDS, BROKEN, UNSURE = "holds", "does not hold", "cannot tell"
BUDGETS = 8  # reference plans, evenly spaced in the logarithm of bytes
ABOVE = 1.15  # the smallest of these budgets, as a multiple of the fewest bytes
REPEATS = 400  # bootstrap samples
SIDES = (0.05, 0.95)  # quantiles of the interval
FAR = 3.0  # standard deviations of noise beyond which a ratio is not shrunk
LEAST = 6  # pairs below which there is no verdict


@dataclass(frozen=True, eq=False)
class HullSteps:
    """The edges of the groups' lower convex hulls, those with the largest saving per byte first.

    C is the number of candidates of all groups; a flat candidate is an index below C.

    Attributes:
        start: (N,) flat candidate with the fewest bytes, by group.
        group: (S,) index of the group, by edge.
        worse, better: (S,) flat candidates at the ends of the edge.
        size: (S,) additional bytes.
        gain: (S,) reduction of the loss.
        loss: (C,) loss of each candidate.
        bytes: (C,) bytes of each candidate.
    """

    start: Ints
    group: Ints
    worse: Ints
    better: Ints
    size: Floats
    gain: Floats
    loss: Floats
    bytes: Floats

    @property
    def rate(self) -> Floats:
        """(S,) reduction of the loss per byte, descending."""
        return self.gain / self.size

    def picks(self, count: int) -> Ints:
        """Return the (N,) flat candidates after the first `count` steps."""
        picks = self.start.copy()
        picks[self.group[:count]] = self.better[:count]  # the last step of a group is assigned last
        return picks


@dataclass(frozen=True, eq=False)
class ReferencePlans:
    """Plans of the old profile whose regret is estimated.

    Attributes:
        picks: (B, N) flat candidates.
        prices: (B,) reduction of the loss per byte at which each plan stops.
    """

    picks: Ints
    prices: Floats


@dataclass(frozen=True)
class RegretVerdict:
    """The verdict on one loss column.

    Attributes:
        column: the loss column.
        regret: excess of the old plans' loss over the best loss at the same bytes, as a share.
        low, high: the interval of the regret.
        spread: standard deviation of the log ratios new / old.
        noise: the part of it that measurement errors explain.
        pairs: the number of pairs in the sample.
        verdict: HOLDS, BROKEN or UNSURE.
        needed: estimated number of pairs that would decide; 0 for a verdict other than UNSURE.
    """

    column: str
    regret: float
    low: float
    high: float
    spread: float
    noise: float
    pairs: int
    verdict: str
    needed: int


def hull_steps(problem: Problem, loss: Floats) -> HullSteps:
    """Return the edges of the hulls of the allowed candidates; `loss` is (C,)."""
    size = problem.column("bytes").astype(np.float64)
    start, edges = [], []
    for place in range(len(problem.groups)):
        members = [i for i in problem.members(place) if problem.allowed[i]]
        first = min(members, key=lambda i: (size[i], loss[i]))
        start.append(first)
        edges += [(place, a, b) for a, b in _hull_edges(first, members, size, loss)]
    group, worse, better = (np.array(column, np.int64) for column in zip(*edges, strict=True)) if edges else _none()
    more, less = size[better] - size[worse], loss[worse] - loss[better]
    order = np.argsort(-less / more, kind="stable")
    return HullSteps(
        np.array(start), group[order], worse[order], better[order], more[order], less[order], np.asarray(loss), size
    )


def reference_plans(problem: Problem, steps: HullSteps) -> ReferencePlans:
    """Return plans at budgets from slightly above the fewest bytes to each group's largest scheme other than `keep`."""
    total = float(steps.bytes[steps.start].sum())
    names = np.array([name for names in problem.candidates for name in names])
    sizes = total + np.cumsum(steps.size)
    finest = total + steps.size[names[steps.better] != KEEP].sum()
    top = finest if finest > ABOVE * total else float(sizes[-1]) if len(sizes) else total
    budgets = np.geomspace(min(ABOVE * total, top), top, BUDGETS)
    counts = np.unique(np.searchsorted(sizes, budgets * (1 + 1e-12), "right"))
    counts = counts[counts < len(sizes)] if (counts < len(sizes)).any() else counts
    picks = np.array([steps.picks(int(count)) for count in counts])
    return ReferencePlans(picks, np.array([_price(steps, int(count)) for count in counts]))


def single_plan(steps: HullSteps, picks: Sequence[int]) -> ReferencePlans:
    """Return the one plan of these flat candidates."""
    candidates = np.array(picks, np.int64)
    more = float(steps.bytes[candidates].sum() - steps.bytes[steps.start].sum())
    count = int(np.searchsorted(np.cumsum(steps.size), more * (1 + 1e-12), "right"))
    return ReferencePlans(candidates[None, :], np.array([_price(steps, count)]))


def choose_sample(steps: HullSteps, plans: ReferencePlans, count: int, start: float = 0.5) -> list[tuple[int, int]]:
    """Return up to `count` (index of a group, flat candidate) to measure: the worse ends of steps.

    The steps are spread evenly over the order of rates, weighted by how near their rates are to the plans' prices.
    No group is chosen twice before each was chosen once. For a single plan, only steps to and from its own candidates
    qualify.
    """
    rate, eligible = steps.rate, np.ones(len(steps.group), bool)
    if len(plans.picks) == 1:
        own = steps.bytes[plans.picks[0]][steps.group]
        eligible = (steps.bytes[steps.worse] <= own) & (own <= steps.bytes[steps.better])
    near = np.minimum(rate[:, None] / plans.prices, plans.prices / rate[:, None]).sum(1) * eligible
    remaining, owners, sample = {int(i) for i in np.flatnonzero(near)}, set[int](), list[int]()
    count, ends = min(count, len(remaining)), np.cumsum(near)
    for turn in range(count):
        place = int(np.searchsorted(ends, ends[-1] * (turn + start) / count))
        fresh = [i for i in remaining if int(steps.group[i]) not in owners] or list(remaining)
        step = min(fresh, key=lambda i: (abs(i - place), i))
        remaining.remove(step)
        owners.add(int(steps.group[step]))
        sample.append(step)
    return [(int(steps.group[step]), int(steps.worse[step])) for step in sorted(sample)]


def judge(
    column: str, sample: tuple[Ints, Floats, Floats], steps: HullSteps, plans: ReferencePlans, tolerance: float,
    seed: int = 0,
) -> RegretVerdict:  # fmt: skip
    """Return the verdict on a loss column.

    Args:
        column: the loss column.
        sample: (n,) indices of groups, log ratios new / old, and the variances of these from measurement errors.
        steps: the hulls of the old profile.
        plans: the plans to judge.
        tolerance: the largest regret, as a share, that still counts as good.
        seed: of the bootstrap.
    """
    owners, ratios, noise = sample
    if len(ratios) < LEAST:
        return RegretVerdict(column, math.nan, 0.0, math.inf, math.nan, math.nan, len(ratios), UNSURE, LEAST)
    centred = ratios - np.median(ratios)
    factors = _draw_factors(owners, centred, noise, len(steps.start), np.random.default_rng(seed))
    values = regrets(steps, plans, factors)
    low, high = np.quantile(values, SIDES)
    point = float(values.mean())
    verdict = HOLDS if high <= tolerance else BROKEN if low > tolerance else UNSURE
    more = _needed(len(ratios), point, (low, high), tolerance) if verdict == UNSURE else 0
    spread, known = float(ratios.std(ddof=1)), float(np.sqrt(noise.mean()))
    return RegretVerdict(column, point, float(low), float(high), spread, known, len(ratios), verdict, more)


def regrets(steps: HullSteps, plans: ReferencePlans, factors: Floats) -> Floats:
    """Return the (R,) mean regrets of the plans when the groups' losses are multiplied by `factors`, (R, N).

    A regret is relative to the plan's excess with unchanged losses. The best plans are those of the relaxation, which
    may take a fraction of a step, so that a regret is never underestimated.
    """
    plain = _excess(steps, plans, np.ones(len(steps.start)))
    return np.array([((1 + _excess(steps, plans, row)) / (1 + plain) - 1).mean() for row in factors])


def _excess(steps: HullSteps, plans: ReferencePlans, factors: Floats) -> Floats:
    """Return the (B,) loss of each plan divided by the least loss at its bytes, minus 1."""
    gain = steps.gain * factors[steps.group]
    order = np.argsort(-gain / steps.size, kind="stable")
    reached = np.concatenate([[0.0], np.cumsum(steps.size[order])])
    saved = np.concatenate([[0.0], np.cumsum(gain[order])])
    start = float(steps.bytes[steps.start].sum())
    least = steps.loss[steps.start] @ factors - np.interp(steps.bytes[plans.picks].sum(1) - start, reached, saved)
    losses = steps.loss[plans.picks] @ factors
    floor = 1e-12 * float(steps.loss[steps.start] @ factors) or 1.0
    share: Floats = np.maximum(losses, floor) / np.maximum(least, floor) - 1
    return share


def _draw_factors(owners: Ints, centred: Floats, noise: Floats, groups: int, rng: np.random.Generator) -> Floats:
    """Return (REPEATS, groups) factors, each row from a bootstrap sample without the variance that noise explains.

    The groups of the sample keep their own ratios.
    """
    rows, places = np.empty((REPEATS, groups)), np.unique(owners)
    for row in rows:
        again = rng.integers(len(centred), size=len(centred))
        values = centred[again] - np.median(centred[again])
        share = _share(values, noise[again])
        row[:] = rng.choice(np.where(_far(values, noise[again]), values, share * values), groups)
        own = np.where(_far(centred, noise), centred, share * centred)
        row[places] = [own[owners == place].mean() for place in places]
    return np.exp(rows)


def _far(centred: Floats, noise: Floats) -> NDArray[np.bool_]:
    """Return the (n,) ratios that noise cannot explain: a fine-tune may change few layers by a lot."""
    return np.square(centred) > FAR**2 * noise


def _share(centred: Floats, noise: Floats) -> float:
    """Return the factor that removes the variance of the noise from the ratios, those beyond `FAR` excluded."""
    near = ~_far(centred, noise)
    variance = float(centred[near].var(ddof=1)) if near.sum() > 1 else 0.0
    return math.sqrt(max(0.0, 1 - float(noise[near].mean()) / variance)) if variance > 0 else 0.0


def _needed(pairs: int, point: float, interval: tuple[float, float], tolerance: float) -> int:
    """Estimate the pairs for an interval without the tolerance in it; its width shrinks with their square root."""
    reach = interval[1] - point if point <= tolerance else point - interval[0]
    apart = abs(tolerance - point)
    return math.ceil(pairs * min(reach / apart, 1e3) ** 2) if apart > 0 else pairs * 10**6


def _price(steps: HullSteps, count: int) -> float:
    """Return the rate of the step after the first `count`, or of the last one."""
    return float(steps.rate[min(count, len(steps.size) - 1)]) if len(steps.size) else 1.0


def _hull_edges(at: int, members: Sequence[int], size: Floats, loss: Floats) -> Iterator[tuple[int, int]]:
    """Yield the edges of one group's hull from the fewest bytes on: each to the candidate with the largest rate."""
    while ups := [i for i in members if size[i] > size[at] and loss[i] < loss[at]]:
        best = max(ups, key=lambda i: ((loss[at] - loss[i]) / (size[i] - size[at]), size[i]))
        yield at, best
        at = best


def _none() -> tuple[Ints, Ints, Ints]:
    return (np.zeros(0, np.int64),) * 3
