"""The regret of keeping a plan: what a linear program says, and how often a verdict on a sample is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog

from bitplan.solvers.problem import Problem
from bitplan.solvers.questions.regret import (
    BROKEN,
    BUDGETS,
    HOLDS,
    LEAST,
    UNSURE,
    RegretVerdict,
    choose_sample,
    hull_steps,
    judge,
    reference_plans,
    regrets,
    single_plan,
)

BITS = (2, 3, 4, 6, 8)
NAMES = tuple(f"w{bits}a8" for bits in BITS) + ("keep",)


def toy(groups: int = 40, seed: int = 0) -> Problem:
    """Layers of many sizes and sensitivities; each bit quarters the loss, about."""
    rng = np.random.default_rng(seed)
    size = rng.integers(100, 5000, groups)
    base = np.exp(2 * rng.standard_normal(groups))
    loss = base[:, None] * 0.25 ** np.array(BITS) * np.exp(0.3 * rng.standard_normal((groups, len(BITS))))
    return Problem(
        groups=tuple(f"unet.{i}" for i in range(groups)),
        candidates=(NAMES,) * groups,
        columns={
            "bytes": (size[:, None] * np.array([*BITS, 32])).ravel(),
            "quality": np.concatenate([loss, np.zeros((groups, 1))], 1).ravel(),
        },
        objective={},
    )


def least(problem: Problem, loss: np.ndarray, size: float) -> float:
    """The relaxation's optimum, by a linear program."""
    member = np.zeros((len(problem.groups), problem.size))
    for group in range(len(problem.groups)):
        member[group, list(problem.members(group))] = 1
    found = linprog(
        loss, problem.column("bytes")[None, :], [size], member, np.ones(len(member)), bounds=(0, 1), method="highs"
    )
    return float(found.fun)


@pytest.mark.parametrize("seed", range(5))
def test_regret_is_what_a_linear_program_says(seed: int) -> None:
    problem = toy(8, seed)
    loss = problem.column("quality")
    steps = hull_steps(problem, loss)
    plans = reference_plans(problem, steps)
    factors = np.exp(np.random.default_rng(seed).standard_normal(len(problem.groups)))
    spread = np.repeat(factors, len(NAMES))
    changed = loss * spread
    sizes = problem.column("bytes")[plans.picks].sum(1)
    shares = [changed[p].sum() / least(problem, changed, s) - 1 for p, s in zip(plans.picks, sizes, strict=True)]
    [found] = regrets(steps, plans, factors[None, :])
    assert found == pytest.approx(np.mean(shares), rel=1e-6, abs=1e-9)
    assert found > 0.01


def test_a_common_factor_changes_no_plan() -> None:
    problem = toy()
    steps = hull_steps(problem, problem.column("quality"))
    plans = reference_plans(problem, steps)
    assert regrets(steps, plans, np.full((1, 40), 7.0)) == pytest.approx([0], abs=1e-12)


def test_steps_fall_in_rate_and_end_at_the_finest() -> None:
    problem = toy()
    steps = hull_steps(problem, problem.column("quality"))
    assert (np.diff(steps.rate) <= 0).all() and (steps.size > 0).all() and (steps.gain > 0).all()
    finest = [problem.index(group, "keep") for group in problem.groups]
    assert steps.picks(len(steps.group)).tolist() == finest
    assert steps.picks(0).tolist() == [problem.index(group, "w2a8") for group in problem.groups]


def test_plans_are_the_best_of_their_bytes_and_quantize() -> None:
    problem = toy()
    loss = problem.column("quality")
    steps = hull_steps(problem, loss)
    plans = reference_plans(problem, steps)
    assert 3 <= len(plans.picks) <= BUDGETS and (np.diff(plans.prices) < 0).all()
    for picks in plans.picks:
        assert loss[picks].sum() == pytest.approx(least(problem, loss, problem.column("bytes")[picks].sum()), rel=1e-9)


def test_what_is_not_allowed_is_no_step() -> None:
    problem = toy()
    some = Problem(problem.groups, problem.candidates, problem.columns, {}, allowed=np.tile(
        [True, False, True, True, True, True], 40))  # fmt: skip
    steps = hull_steps(some, some.column("quality"))
    assert {some.candidates[0][at % len(NAMES)] for at in steps.better} <= {"w4a8", "w6a8", "w8a8", "keep"}


def test_the_sample_takes_each_layer_once_first_and_steps_near_the_plans() -> None:
    problem = toy()
    steps = hull_steps(problem, problem.column("quality"))
    plans = reference_plans(problem, steps)
    some = choose_sample(steps, plans, 24)
    assert len({group for group, _ in some}) == len(set(some)) == 24
    more = choose_sample(steps, plans, 60)
    assert len(set(more)) == 60 and len({group for group, _ in more}) == 40
    assert len(choose_sample(steps, plans, 10_000)) == len(steps.group)
    assert choose_sample(steps, plans, 24, 0.1) != some == choose_sample(steps, plans, 24)
    assert all(at in problem.members(group) for group, at in more)


def test_the_sample_of_a_plan_is_of_its_own_choices() -> None:
    problem = toy()
    steps = hull_steps(problem, problem.column("quality"))
    picks = steps.picks(60)
    plan = single_plan(steps, picks.tolist())
    for group, at in choose_sample(steps, plan, 30):
        step = next(s for s in range(len(steps.group)) if steps.worse[s] == at and steps.group[s] == group)
        assert picks[group] in (steps.worse[step], steps.better[step])
    assert plan.prices == pytest.approx([steps.rate[60]])


def test_a_plan_that_is_not_the_best_has_no_regret_without_a_change() -> None:
    problem = toy()
    steps = hull_steps(problem, problem.column("quality"))
    uniform = single_plan(steps, [problem.index(group, "w4a8") for group in problem.groups])
    assert regrets(steps, uniform, np.ones((1, 40))) == pytest.approx([0], abs=1e-12)


# error rates -----------------------------------------------------------------------------------------------------


def verdicts(change: float, noise: float, runs: int = 40, sample: int = 24) -> list[RegretVerdict]:
    """Of so many fine-tunes whose layers' losses change by factors of that spread, measured with that noise."""
    problem = toy(60)
    steps = hull_steps(problem, problem.column("quality"))
    plans = reference_plans(problem, steps)
    owners = np.array([group for group, _ in choose_sample(steps, plans, sample)])
    rng, found = np.random.default_rng(0), []
    for run in range(runs):
        ratios = 0.7 + change * rng.standard_normal(sample) + noise * rng.standard_normal(sample)
        found.append(judge("quality", (owners, ratios, np.full(sample, noise**2)), steps, plans, 0.1, run))
    return found


@pytest.mark.parametrize("noise", [0.1, 0.4])
def test_no_change_is_never_called_one_and_mostly_called_none(noise: float) -> None:
    found = verdicts(0.0, noise)
    assert not any(each.verdict == BROKEN for each in found)
    assert sum(each.verdict == HOLDS for each in found) >= 34


@pytest.mark.parametrize("noise", [0.1, 0.4])
def test_a_change_is_never_called_none_and_mostly_found(noise: float) -> None:
    found = verdicts(1.3, noise)
    assert not any(each.verdict == HOLDS for each in found)
    assert sum(each.verdict == BROKEN for each in found) >= 34


def test_in_between_more_pairs_are_asked_for_and_settle_it() -> None:
    few = verdicts(0.3, 0.1, 20, 8)
    unsure = [each for each in few if each.verdict == UNSURE]
    assert unsure and all(each.needed > each.pairs for each in unsure)
    assert sum(e.verdict == HOLDS for e in verdicts(0.3, 0.1, 20, 50)) > sum(e.verdict == HOLDS for e in few)


def test_the_whole_population_leaves_no_doubt() -> None:
    problem = toy(12)
    steps = hull_steps(problem, problem.column("quality"))
    plans = reference_plans(problem, steps)
    ratios = np.random.default_rng(0).standard_normal(12)
    found = judge("quality", (np.arange(12), ratios, np.zeros(12)), steps, plans, 0.1)
    assert found.low == pytest.approx(found.high) == found.regret
    assert found.regret == pytest.approx(regrets(steps, plans, np.exp(ratios)[None, :])[0])


def test_few_pairs_tell_nothing() -> None:
    problem = toy()
    steps = hull_steps(problem, problem.column("quality"))
    sample = np.arange(LEAST - 1), np.zeros(LEAST - 1), np.zeros(LEAST - 1)
    assert judge("quality", sample, steps, reference_plans(problem, steps), 0.1).verdict == UNSURE
