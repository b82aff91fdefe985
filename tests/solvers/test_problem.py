"""Problems that make no sense are refused in one line."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bitplan.solvers.problem import Budget, Problem, ProblemError, Tie, pin

GOOD = {
    "groups": ("a", "b"),
    "candidates": (("x", "y"), ("x",)),
    "columns": {"bytes": [1, 2, 3], "loss": [0.1, 0.2, 0.3]},
    "objective": {"loss": 1.0},
}
BAD = [
    ({"groups": (), "candidates": ()}, "no groups"),
    ({"groups": ("a",)}, "1 groups but candidates of 2"),
    ({"groups": ("a", "a")}, "'a' is listed twice"),
    ({"candidates": (("x", "y"), ())}, "'b' has no candidates"),
    ({"candidates": (("x", "x"), ("x",))}, "'a' lists a candidate twice"),
    ({"columns": {"loss": [0.1, 0.2]}}, r"shape \(2,\); expected \(3,\)"),
    ({"columns": {"loss": [0.1, math.nan, 0.3]}}, "'loss' is nan at candidate 1"),
    ({"columns": {"loss": [0.1, math.inf, 0.3]}}, "'loss' is inf at candidate 1"),
    ({"columns": {"loss": [0.1, 0.2, -0.3]}}, "'loss' is -0.3 at candidate 2"),
    ({"columns": {"loss": ["1", "2", "3"]}}, "expected integers or floats"),
    ({"columns": {"loss": np.array([1, 2, 2**63], dtype=np.uint64)}}, "larger unit"),
    ({"objective": {"los": 1.0}}, "no column is named 'los'; did you mean 'loss'"),
    ({"objective": {"loss": -1.0}}, "weighs 'loss' by -1.0"),
    ({"objective": {"loss": math.nan}}, "weighs 'loss' by nan"),
    ({"columns": {"loss": [1e308, 0.0, 1e308]}}, "overflows"),
    ({"budgets": (Budget("byte", 1),)}, "did you mean 'bytes'"),
    ({"ties": (Tie({"c": ("p",)}),)}, "unknown group 'c'"),
    ({"ties": (Tie({"a": ("p",)}),)}, "1 labels to group 'a', which has 2"),
    ({"allowed": [True]}, "allowed is bool of shape"),
    ({"allowed": [1, 0, 1]}, "expected booleans"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[message for _, message in BAD])
def test_refuses(change: dict[str, object], message: str) -> None:
    with pytest.raises(ProblemError, match=message) as caught:
        Problem(**{**GOOD, **change})  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("limit", [math.nan, math.inf, -math.inf])
def test_budget_refuses_what_is_no_number(limit: float) -> None:
    with pytest.raises(ProblemError, match="finite"):
        Budget("bytes", limit)


def test_columns_keep_their_kind_and_cannot_be_changed() -> None:
    problem = Problem(**GOOD)  # type: ignore[arg-type]
    assert problem.columns["bytes"].dtype == np.int64 and problem.columns["loss"].dtype == np.float64
    with pytest.raises(ValueError, match="read-only"):
        problem.columns["bytes"][0] = 5


def test_pin_leaves_one_candidate() -> None:
    problem = Problem(**GOOD)  # type: ignore[arg-type]
    assert pin(problem, {"a": "y"}).allowed.tolist() == [False, True, True]
    assert problem.allowed.all()
    with pytest.raises(ProblemError, match="did you mean 'y'"):
        pin(problem, {"a": "yy"})
    with pytest.raises(ProblemError, match="no group is named 'q'"):
        pin(problem, {"q": "y"})
