"""A search for several plans that is interrupted keeps those that it found, says so, and is continued."""

from __future__ import annotations

import hashlib
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
    for path in whole.glob("*.yaml"):
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


def test_files_of_an_earlier_search_are_replaced_as_a_set(finished: Path, tmp_path: Path) -> None:
    """Those that `solve` wrote for this name, and no others: not what somebody else named so, or changed since."""
    out, own = tmp_path / "p.plan.yaml", {"p.9.plan.yaml", "p.ranking.txt", "q.2.plan.yaml"}
    for name in own:
        (tmp_path / name).write_text("somebody's own")
    bitplan.solve(finished, out, memory="14%", candidates=5, rerank="joint")
    first = {"p.plan.yaml", "p.candidates.json", "p.ranking.json", *(f"p.{n}.plan.yaml" for n in range(1, 6))}
    assert names(tmp_path) == own | first
    changed = tmp_path / "p.4.plan.yaml"
    changed.write_text(changed.read_text() + "# a remark\n")
    bitplan.solve(finished, out, memory="20%", candidates=2)
    second = {"p.plan.yaml", "p.candidates.json", "p.1.plan.yaml", "p.2.plan.yaml"}
    assert names(tmp_path) == own | second | {changed.name}
    assert load_plan(tmp_path / "p.1.plan.yaml") == load_plan(out)
    bitplan.solve(finished, out, uniform="w8a8")
    assert names(tmp_path) == own | {"p.plan.yaml", changed.name}


def test_an_earlier_search_is_replaced_after_an_interrupt_too(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "p.plan.yaml"
    bitplan.solve(finished, out, **REQUEST)
    interrupted_at(3, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        bitplan.solve(finished, out, **REQUEST | {"memory": "20%", "candidates": 3})
    interrupted_at(0, monkeypatch)
    bitplan.solve(finished, out, **REQUEST | {"memory": "20%", "candidates": 3})
    assert names(tmp_path) == {"p.plan.yaml", "p.candidates.json", *(f"p.{n}.plan.yaml" for n in range(1, 4))}


@pytest.mark.parametrize(
    "text", ['{"files": {"../victim.yaml": "%s"}}', '{"files": {"p.1.x/../victim.yaml": "%s"}}', '{"files": 3}',
             '{"files": {"victim.yaml": "%s"}}', '{"files": ["p.1.plan.yaml"]}', "[]", "not JSON", "{}"])  # fmt: skip
def test_a_list_of_files_made_by_others_removes_nothing(text: str, finished: Path, tmp_path: Path) -> None:
    victims = [tmp_path / "victim.yaml", tmp_path / "run" / "victim.yaml"]
    for victim in victims:
        victim.parent.mkdir(exist_ok=True)
        victim.write_text("a")
    listed = tmp_path / "run" / "p.candidates.json"
    listed.write_text(text.replace("%s", hashlib.sha256(b"a").hexdigest()))
    bitplan.solve(finished, tmp_path / "run" / "p.plan.yaml", uniform="w8a8")
    assert all(victim.exists() for victim in victims) and listed.exists()


def test_the_command_names_every_file_that_it_writes(finished: Path, tmp_path: Path, command_line: Any) -> None:
    words = ("solve", finished, "--memory", "14%", "--candidates", "3", "--rerank", "joint", "--quiet")
    done = command_line(*words, "--out", tmp_path / "p.plan.yaml")
    assert done.exit_code == 0, done.output
    assert sorted(done.stdout.split()) == sorted(str(path) for path in tmp_path.iterdir())


def test_a_single_search_that_is_interrupted_writes_nothing(
    finished: Path, tmp_path: Path, command_line: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(answer, "_solutions", interrupt)
    result = command_line("solve", finished, "--memory", "14%", "--out", tmp_path / "p.plan.yaml")
    assert result.exit_code == 130 and result.stderr == "bitplan: interrupted; nothing was written\n"
    assert not names(tmp_path)
