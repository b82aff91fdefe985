"""Whether a profile's plans are still good for a fine-tune, out of a small sample of new measurements. Needs no torch.

Of every layer the schemes that some plan can want form a ladder: steps of more bytes and less loss, each with a rate.
Plans are prefixes of all layers' steps in the order of their rates, so that what a fine-tune can spoil is that order. A
factor common to all losses changes no plan; what counts is how much the ratios new / old differ between layers, beyond
what the errors of both measurements explain. The ratios that the sample shows are drawn for the layers outside of it,
and the old plans compared with the best ones for losses so changed: their **regret**. The bootstrap of the sample gives
its interval, and that the verdict.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitplan.solvers.problem import Problem

KEEP = "keep"  # to be handed in: solvers know no scheme

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
HOLDS, BROKEN, UNSURE = "holds", "does not hold", "cannot tell"
BUDGETS = 8  # plans whose decisions are sampled and whose regret is averaged, evenly in the logarithm of bytes
ABOVE = 1.15  # times the least bytes: the smallest of these budgets
REPEATS = 400  # of the bootstrap
SIDES = (0.05, 0.95)  # of the interval
FAR = 3.0  # standard deviations of noise, beyond which a ratio is taken for what it is
LEAST = 6  # pairs, to say anything


@dataclass(frozen=True, eq=False)
class Ladder:
    """The steps worth taking, the most worthwhile first. start: (N,) flat candidate of each group's fewest bytes;
    group, worse, better: (S,) the place of a group and two flat candidates; size: (S,) bytes more; gain: (S,) loss
    less; loss: (C,) of all candidates; bytes: (C,)."""

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
        """(S,) loss less a byte, falling."""
        return self.gain / self.size

    def picks(self, steps: int) -> Ints:
        """(N,) flat candidates after so many steps."""
        found = self.start.copy()
        found[self.group[:steps]] = self.better[:steps]  # of steps of one group the last is written last
        return found


@dataclass(frozen=True, eq=False)
class Plans:
    """What is judged: plans of the old profile. picks: (B, N) flat candidates; prices: (B,) loss a byte at which each
    was chosen."""

    picks: Ints
    prices: Floats


@dataclass(frozen=True)
class Judged:
    """One loss column. regret: by how much the old plans' loss is above the best of the same bytes, as a share, with
    the interval low to high; spread: standard deviation of the log ratios new / old; noise: what of it errors of
    measurement explain; pairs: how many; verdict: HOLDS, BROKEN or UNSURE; needed: pairs that would settle it, about,
    0 where it is settled."""

    column: str
    regret: float
    low: float
    high: float
    spread: float
    noise: float
    pairs: int
    verdict: str
    needed: int


def ladder_of(problem: Problem, loss: Floats) -> Ladder:
    """Of the problem's allowed candidates, by bytes and the given loss of each: (C,)."""
    size = problem.column("bytes").astype(np.float64)
    start, steps = [], []
    for place in range(len(problem.groups)):
        members = [i for i in problem.members(place) if problem.allowed[i]]
        first = min(members, key=lambda i: (size[i], loss[i]))
        start.append(first)
        steps += [(place, a, b) for a, b in _climb(first, members, size, loss)]
    group, worse, better = (np.array(column, np.int64) for column in zip(*steps, strict=True)) if steps else _none()
    more, less = size[better] - size[worse], loss[worse] - loss[better]
    order = np.argsort(-less / more, kind="stable")
    return Ladder(
        np.array(start), group[order], worse[order], better[order], more[order], less[order], np.asarray(loss), size
    )


def plans_on(problem: Problem, ladder: Ladder) -> Plans:
    """Plans at budgets from little above the fewest bytes to each group's finest scheme but `keep`."""
    total = float(ladder.bytes[ladder.start].sum())
    names = np.array([name for names in problem.candidates for name in names])
    sizes = total + np.cumsum(ladder.size)
    finest = total + ladder.size[names[ladder.better] != KEEP].sum()
    top = finest if finest > ABOVE * total else float(sizes[-1]) if len(sizes) else total
    budgets = np.geomspace(min(ABOVE * total, top), top, BUDGETS)
    taken = np.unique(np.searchsorted(sizes, budgets * (1 + 1e-12), "right"))
    taken = taken[taken < len(sizes)] if (taken < len(sizes)).any() else taken
    return Plans(np.array([ladder.picks(int(k)) for k in taken]), np.array([_price(ladder, int(k)) for k in taken]))


def plan_on(ladder: Ladder, picks: Sequence[int]) -> Plans:
    """The one plan with these flat candidates."""
    chosen = np.array(picks, np.int64)
    more = float(ladder.bytes[chosen].sum() - ladder.bytes[ladder.start].sum())
    taken = int(np.searchsorted(np.cumsum(ladder.size), more * (1 + 1e-12), "right"))
    return Plans(chosen[None, :], np.array([_price(ladder, taken)]))


def choose(ladder: Ladder, plans: Plans, count: int, start: float = 0.5) -> list[tuple[int, int]]:
    """So many (place of a group, flat candidate) to measure: the worse ends of steps, for they are what a step gains.

    Evenly over the ranking, where steps count by how near their rates are to the plans' prices; each layer once before
    any comes twice. Of one plan alone, the steps to and from its own choices.
    """
    rate, free = ladder.rate, np.ones(len(ladder.group), bool)
    if len(plans.picks) == 1:
        own = ladder.bytes[plans.picks[0]][ladder.group]
        free = (ladder.bytes[ladder.worse] <= own) & (own <= ladder.bytes[ladder.better])
    near = np.minimum(rate[:, None] / plans.prices, plans.prices / rate[:, None]).sum(1) * free
    left, owners, chosen = {int(i) for i in np.flatnonzero(near)}, set[int](), list[int]()
    count, ends = min(count, len(left)), np.cumsum(near)
    for turn in range(count):
        place = int(np.searchsorted(ends, ends[-1] * (turn + start) / count))
        fresh = [i for i in left if int(ladder.group[i]) not in owners] or list(left)
        step = min(fresh, key=lambda i: (abs(i - place), i))
        left.remove(step)
        owners.add(int(ladder.group[step]))
        chosen.append(step)
    return [(int(ladder.group[step]), int(ladder.worse[step])) for step in sorted(chosen)]


def judge(
    column: str, sample: tuple[Ints, Floats, Floats], ladder: Ladder, plans: Plans, tolerance: float, seed: int = 0
) -> Judged:
    """sample: (n,) places of groups, log ratios new / old, and variances that the measurements' errors give these;
    tolerance: the share of regret that a plan may have and still be called good."""
    owners, ratios, noise = sample
    if len(ratios) < LEAST:
        return Judged(column, math.nan, 0.0, math.inf, math.nan, math.nan, len(ratios), UNSURE, LEAST)
    centred = ratios - np.median(ratios)
    found = regrets(ladder, plans, _drawn(owners, centred, noise, len(ladder.start), np.random.default_rng(seed)))
    low, high = np.quantile(found, SIDES)
    point = float(found.mean())
    verdict = HOLDS if high <= tolerance else BROKEN if low > tolerance else UNSURE
    more = _needed(len(ratios), point, (low, high), tolerance) if verdict == UNSURE else 0
    spread, known = float(ratios.std(ddof=1)), float(np.sqrt(noise.mean()))
    return Judged(column, point, float(low), float(high), spread, known, len(ratios), verdict, more)


def regrets(ladder: Ladder, plans: Plans, factors: Floats) -> Floats:
    """(R,): by which share the plans lose more than the best of their bytes, averaged over them, when the losses of
    each group are multiplied by `factors` (R, N), beyond what they lose more already without.

    The best are those of the relaxation that may take a part of a step, so that a regret is never told too small.
    """
    plain = _excess(ladder, plans, np.ones(len(ladder.start)))
    return np.array([((1 + _excess(ladder, plans, row)) / (1 + plain) - 1).mean() for row in factors])


def _excess(ladder: Ladder, plans: Plans, factors: Floats) -> Floats:
    """(B,): loss of each plan over the least at its bytes, less 1."""
    gain = ladder.gain * factors[ladder.group]
    order = np.argsort(-gain / ladder.size, kind="stable")
    reached = np.concatenate([[0.0], np.cumsum(ladder.size[order])])
    saved = np.concatenate([[0.0], np.cumsum(gain[order])])
    start = float(ladder.bytes[ladder.start].sum())
    least = ladder.loss[ladder.start] @ factors - np.interp(ladder.bytes[plans.picks].sum(1) - start, reached, saved)
    mine = ladder.loss[plans.picks] @ factors
    floor = 1e-12 * float(ladder.loss[ladder.start] @ factors) or 1.0
    share: Floats = np.maximum(mine, floor) / np.maximum(least, floor) - 1
    return share


def _drawn(owners: Ints, centred: Floats, noise: Floats, groups: int, rng: np.random.Generator) -> Floats:
    """(REPEATS, groups) factors: each from a bootstrap sample, without what noise explains; a layer of the sample keeps
    its own."""
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
    """(n,) what no noise explains, whatever the others do: one layer in many may have changed, and that by a lot."""
    return np.square(centred) > FAR**2 * noise


def _share(centred: Floats, noise: Floats) -> float:
    """By which ratios are shrunk, those that are far apart, so that their variance is what noise leaves of it."""
    near = ~_far(centred, noise)
    variance = float(centred[near].var(ddof=1)) if near.sum() > 1 else 0.0
    return math.sqrt(max(0.0, 1 - float(noise[near].mean()) / variance)) if variance > 0 else 0.0


def _needed(pairs: int, point: float, interval: tuple[float, float], tolerance: float) -> int:
    """About how many pairs would bring the interval off the tolerance: its width shrinks with their square root."""
    reach = interval[1] - point if point <= tolerance else point - interval[0]
    apart = abs(tolerance - point)
    return math.ceil(pairs * min((reach / apart) ** 2, 1e6)) if apart > 0 else pairs * 10**6


def _price(ladder: Ladder, taken: int) -> float:
    """Of the next step, or of the last where all are taken."""
    return float(ladder.rate[min(taken, len(ladder.size) - 1)]) if len(ladder.size) else 1.0


def _climb(at: int, members: Sequence[int], size: Floats, loss: Floats) -> Iterator[tuple[int, int]]:
    """The steps of one group: each to the candidate that gains most a byte, from the fewest bytes on."""
    while ups := [i for i in members if size[i] > size[at] and loss[i] < loss[at]]:
        best = max(ups, key=lambda i: ((loss[at] - loss[i]) / (size[i] - size[at]), size[i]))
        yield at, best
        at = best


def _none() -> tuple[Ints, Ints, Ints]:
    return (np.zeros(0, np.int64),) * 3
