"""A search for several plans that is interrupted keeps those that it found, says so, and is continued."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import bitplan
from bitplan.planner.choice import answer
from bitplan.plans.plan import load_plan
from bitplan.solvers.questions import kbest
from bitplan.solvers.solve import solve

REQUEST = {"memory": "14%", "candidates": 5, "distance": 2}


def interrupted_at(number: int, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Make the solve of that number raise an interrupt; returns the solves."""
    solves: list[object] = []

    def counted(*arguments: Any) -> Any:
        solves.append(arguments)
        if len(solves) == number:
            raise KeyboardInterrupt
        return solve(*arguments)

    monkeypatch.setattr(kbest, "solve", counted)
    return solves


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_was_found_is_kept_and_continued(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, out = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir(), out.mkdir()
    best = bitplan.solve(finished, whole / "p.plan.yaml", **REQUEST)
    interrupted_at(4, monkeypatch)
    with pytest.raises(KeyboardInterrupt) as stopped:
        bitplan.solve(finished, out / "p.plan.yaml", **REQUEST)
    assert stopped.value.__notes__ == [
        f"3 of 5 plans are kept, up to {out / 'p.3.plan.yaml'}, and the same command continues from there"
    ]
    assert names(out) == {"p.plan.yaml", "p.1.plan.yaml", "p.2.plan.yaml", "p.3.plan.yaml", "p.candidates.json"}
    solves = interrupted_at(0, monkeypatch)
    assert bitplan.solve(finished, out / "p.plan.yaml", **REQUEST) == best
    assert len(solves) == 2
    assert names(out) == names(whole)
    for path in whole.iterdir():
        one, two = load_plan(path), load_plan(out / path.name)
        assert one.solver["objective"] == two.solver["objective"] and one.schemes == two.schemes


def test_another_request_begins_anew(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "p.plan.yaml"
    interrupted_at(3, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        bitplan.solve(finished, out, **REQUEST)
    solves = interrupted_at(0, monkeypatch)
    other = bitplan.solve(finished, out, **REQUEST | {"memory": "13%"})
    assert len(solves) == 5 and load_plan(tmp_path / "p.1.plan.yaml") == other


def test_a_single_search_that_is_interrupted_writes_nothing(
    finished: Path, tmp_path: Path, command_line: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(answer, "_solutions", interrupt)
    result = command_line("solve", finished, "--memory", "14%", "--out", tmp_path / "p.plan.yaml")
    assert result.exit_code == 130 and result.stderr == "bitplan: interrupted; nothing was written\n"
    assert not names(tmp_path)
