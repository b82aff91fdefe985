"""The contract of every backend against brute force, and what must never be reported."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from bitplan.solvers.certify import violations
from bitplan.solvers.effort import Effort
from bitplan.solvers.problem import Budget, Problem, ProblemError, Tie
from bitplan.solvers.programs.backends import BACKENDS, Backend, BackendError, backend_named
from bitplan.solvers.programs.backends import base as backend_base
from bitplan.solvers.search.labels import OutOfRoomError
from bitplan.solvers.solution import NoSolutionError, Status
from bitplan.solvers.solve import solve
from tests.solvers import oracle

HERE = [
    pytest.param(backend.name, marks=pytest.mark.skipif(backend.missing() is not None, reason=str(backend.missing())))
    for backend in BACKENDS
]
SCALES = (1e-30, 1e-14, 1.0, 1e9, 1e30)
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def hard(groups: int = 60, size: int = 10, budgets: int = 4, seed: int = 0) -> Problem:
    """Uncorrelated weights on several tight budgets: far from proven in a fraction of a second."""
    random = np.random.default_rng(seed)
    columns = {f"b{i}": random.integers(1, 10**6, groups * size) for i in range(budgets)}
    columns["loss"] = random.integers(1, 10**6, groups * size)
    limits = tuple(Budget(f"b{i}", int(0.3e6 * groups)) for i in range(budgets))
    names = tuple(str(j) for j in range(size))
    return Problem(tuple(f"g{i}" for i in range(groups)), (names,) * groups, columns, {"loss": 1.0}, limits)


def check_against_brute_force(problem: Problem, backend: str) -> None:
    solution, best = solve(problem, Effort(backend=backend)), oracle.best(problem)
    if best is None:
        assert solution.status is Status.INFEASIBLE
        return
    assert solution.status is Status.OPTIMAL
    assert oracle.within(problem, solution.picks) and solution.picks in set(oracle.choices(problem))
    assert Fraction(solution.objective) <= best * (1 + Fraction(1, 10**9))
    assert solution.bound <= solution.objective and solution.gap <= 1e-9


@pytest.mark.parametrize("backend", HERE)
@given(problem=oracle.problems(SCALES))
@settings(CALM, max_examples=80)
def test_finds_the_optimum_or_proves_there_is_none(problem: Problem, backend: str) -> None:
    check_against_brute_force(problem, backend)


def no_room(*args: object) -> None:
    raise OutOfRoomError


OFF = {  # what the exact path can do without
    "repair": lambda core, point: None,
    "search": no_room,
    "_find_feasible": lambda problem, core, state, points, limits: (state, False),
}


@pytest.mark.parametrize("off", [("search",), ("repair",), ("repair", "search"), tuple(OFF)], ids=" and ".join)
@pytest.mark.parametrize("backend", HERE)
@given(problem=oracle.problems(SCALES))
@settings(CALM, max_examples=30)
def test_each_part_of_the_path_finds_it_alone(problem: Problem, backend: str, off: tuple[str, ...]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name in off:
            patch.setattr(f"bitplan.solvers.search.path.{name}", OFF[name])
        check_against_brute_force(problem, backend)


@pytest.mark.parametrize("backend", HERE)
def test_same_plan_at_every_loss_scale(backend: str) -> None:
    problem = hard(12, 5, 2)
    losses = problem.columns["loss"].astype(float)
    losses[::5] *= 1e4  # a few ruinous candidates set the scale that a naive model would use
    plans = []
    for power in range(-30, 31, 10):
        columns = {**problem.columns, "loss": losses * 10.0**power}
        plans.append(solve(replace(problem, columns=columns), Effort(backend=backend)).chosen)
    assert all(plan == plans[0] for plan in plans)


@pytest.mark.parametrize("backend", HERE)
def test_timed_out_answer_is_not_optimal(backend: str) -> None:
    solution = solve(hard(), Effort(time_limit=0.5, backend=backend))
    assert solution.status is Status.FEASIBLE
    assert solution.gap > 1e-6 and "limit" in solution.stopped
    assert not violations(hard(), solution.picks)


@pytest.mark.parametrize("backend", HERE)
def test_stopped_before_any_answer(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitplan.solvers.search.path.repair", OFF["repair"])
    solution = solve(hard(200, 20, 8), Effort(time_limit=0.01, backend=backend))
    assert solution.status is Status.INTERRUPTED and math.isinf(solution.gap)
    with pytest.raises(NoSolutionError, match="stopped before any choice"):
        _ = solution.objective


@pytest.mark.parametrize("backend", HERE)
def test_gap_asked_for_is_reached_and_not_called_optimal(backend: str) -> None:
    solution = solve(hard(30, 8, 2), Effort(gap=0.05, backend=backend))
    exact = solve(hard(30, 8, 2), Effort(backend=backend))
    assert solution.gap <= 0.05 and solution.bound <= exact.objective <= solution.objective
    assert (solution.status is Status.OPTIMAL) == (solution.gap <= 1e-9)


@pytest.mark.parametrize("backend", HERE)
@pytest.mark.parametrize("off", [0, 1])
def test_one_byte_decides(backend: str, off: int) -> None:
    problem, tie = hard(40, 6, 2, seed=3), ("a", "a", "b", "b", "b", "a")
    problem = replace(problem, ties=(Tie({"g1": tie, "g2": tie, "g5": tie}),), objective={"b1": 1.0})
    least = solve(replace(problem, budgets=problem.budgets[1:], objective={"b0": 1.0}), Effort(backend=backend)).totals[
        "b0"
    ]
    tight = replace(problem, budgets=(Budget("b0", least - off), problem.budgets[1]))
    solution = solve(tight, Effort(backend=backend))
    assert solution.status is (Status.INFEASIBLE if off else Status.OPTIMAL)
    assert off or solution.totals["b0"] == least


@pytest.mark.parametrize("backend", HERE)
@pytest.mark.parametrize("off", [0, 1])
def test_last_bit_of_a_float_budget_decides(backend: str, off: int) -> None:
    limit = Fraction(1e6) + Fraction(0.7) - off * Fraction(1, 2**60)  # as floats, 1e6 + 0.7 - (1e6 + 0.1) < 0.7 - 0.1
    columns = {"ms": [1e6, 0.7, 0.1], "loss": [0.0, 1.0, 2.0]}
    budgets = (Budget("ms", limit),)
    problem = Problem(("a", "b"), (("x",), ("slow", "fast")), columns, {"loss": 1.0}, budgets)  # type: ignore[arg-type]
    solution = solve(problem, Effort(backend=backend))
    assert solution.status is Status.OPTIMAL and solution.chosen["b"] == ("fast" if off else "slow")


@pytest.mark.parametrize("backend", HERE)
def test_no_backend_denies_an_answer_that_there_is(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """HiGHS 1.15 drops rows of this program where its presolve may enumerate solutions."""
    only_the_program(monkeypatch)
    ms = [0.48519097, 0.9807372, 0.96165719, 0.72478994, 0.54122686, 0.2768912, 0.16065201, 0.96992541, 0.51606859,
          0.11586561, 0.62348976, 0.77668311, 0.6130033]  # fmt: skip
    columns = {
        "bytes": [0, 0, 3, 3, 0, 1, 3, 1, 1, 3, 1, 1, 2],
        "ms": ms,
        "loss": [9, 0, 0, 6, 18, 14, 3, 14, 0, 3, 14, 0, 0],
    }
    names = (("a", "b"), ("a", "b", "c"), ("a", "b", "c", "d"), ("a", "b", "c", "d"))
    budgets = (Budget("bytes", 5), Budget("ms", 2.08))
    problem = Problem(("p", "q", "r", "s"), names, columns, {"loss": 1.0}, budgets)  # type: ignore[arg-type]
    assert Fraction(solve(problem, Effort(backend=backend)).objective) == oracle.best(problem)


def only_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, nothing in OFF.items():
        monkeypatch.setattr(f"bitplan.solvers.search.path.{name}", nothing)


class Lying:
    """A backend whose first answers break a budget, as integrality tolerances allow, before it tells the truth."""

    name = "lying"

    def __init__(self, real: Backend, lies: int, state: str = backend_base.OPTIMAL) -> None:
        self.real, self.lies, self.state, self.calls = real, lies, state, 0

    def run(self, program, deadline, gap):  # type: ignore[no-untyped-def]
        self.calls += 1
        if self.calls > self.lies:
            return self.real.run(program, deadline, gap)
        for variable in program.variables():
            variable.varValue = 1.0 if program.objective.get(variable, 0.0) == 0.0 else 0.0
        return backend_base.ProgramResult(self.state, 0.0, True, "a lie")


def test_answer_that_breaks_a_budget_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    liar = Lying(backend_named(), lies=1)
    monkeypatch.setattr("bitplan.solvers.solve.backend_named", lambda name: liar)
    only_the_program(monkeypatch)
    problem = hard(12, 5, 2, seed=5)
    solution = solve(problem)
    assert liar.calls == 2 and solution.status is Status.OPTIMAL and not violations(problem, solution.picks)
    monkeypatch.undo()
    assert solution.objective == solve(problem).objective


def test_answer_that_always_breaks_a_budget_is_never_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    liar = Lying(backend_named(), lies=10**9)
    monkeypatch.setattr("bitplan.solvers.solve.backend_named", lambda name: liar)
    only_the_program(monkeypatch)
    solution = solve(hard(12, 5, 2, seed=5), Effort(time_limit=0.3))
    assert solution.status is Status.INTERRUPTED


@pytest.mark.parametrize("state", [backend_base.STOPPED, backend_base.FAILED])
def test_backend_that_stops_proves_nothing(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = hard(30, 8, 3, seed=5)
    monkeypatch.setattr("bitplan.solvers.search.path.search", no_room)
    ended = backend_base.ProgramResult(state, -math.inf, False, "gone")
    monkeypatch.setattr(Backend, "run", lambda self, program, time_limit, gap: ended)
    solution = solve(problem)
    assert solution.status is Status.FEASIBLE and solution.stopped == "gone" and solution.gap > 0


def test_backend_that_denies_a_certified_choice_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = backend_base.ProgramResult(backend_base.INFEASIBLE, math.inf, False, "none")
    monkeypatch.setattr(Backend, "run", lambda self, program, time_limit, gap: ended)
    monkeypatch.setattr("bitplan.solvers.search.path.search", no_room)
    assert solve(hard(30, 8, 3, seed=5)).status is Status.FEASIBLE


def test_unknown_or_missing_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match="choose from highs, cbc"):
        solve(hard(2, 2, 1), Effort(backend="hihgs"))
    monkeypatch.setattr(Backend, "missing", lambda self: "not installed")
    with pytest.raises(BackendError, match="highs: not installed; cbc: not installed"):
        solve(hard(2, 2, 1))


@pytest.mark.parametrize("bad", [{"time_limit": 0}, {"gap": -0.1}, {"gap": 1.0}, {"time_limit": math.nan}])
def test_senseless_limits(bad: dict[str, float]) -> None:
    with pytest.raises(ProblemError, match="the time limit is"):
        solve(hard(2, 2, 1), Effort(**bad))


@pytest.mark.parametrize("backend", HERE)
def test_model_sized_problem(backend: str) -> None:
    random, count = np.random.default_rng(7), 800
    bits = np.tile([16, 8, 8, 6, 6, 5, 5, 4, 4, 3, 3, 2], count)
    size = np.repeat(random.lognormal(13, 1.2, count).astype(np.int64), 12)
    loss = np.repeat(random.lognormal(-12, 3, count), 12) * 4.0 ** -bits.astype(float)
    loss *= random.uniform(0.8, 1.2, 12 * count)
    labels = ("16", "16", "8") * 4
    problem = Problem(
        tuple(f"layer{i}" for i in range(count)),
        (tuple(f"s{j}" for j in range(12)),) * count,
        {"bytes": size * bits // 8, "loss": loss},
        {"loss": 1.0},
        (Budget("bytes", int((size * 4 // 8).sum() // 12)),),
        tuple(Tie({f"layer{i + j}": labels for j in range(3)}) for i in range(0, 600, 10)),
    )
    solution = solve(problem, Effort(gap=1e-4, time_limit=60, backend=backend))
    assert solution.gap <= 1e-4 and not violations(problem, solution.picks)
