"""Every verb that is interrupted says what it kept, and this is so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import bitplan
from bitplan.planner.evaluation.plans import PlanResult
from bitplan.planner.interrupts import Terminated
from bitplan.planner.verbs import COMMANDS
from bitplan.planner.views import run as sweeping
from bitplan.planner.views.view import read_view
from bitplan.plans.plan import load_plan

# command -> its words, of which `a` and `b` are a profile and `p` its plan, and the function in which it is interrupted
BEGUN = {
    "profile": ("scenes --out x", "bitplan.planner.pipelines.sources.load_subject"),
    "merge": ("a b --out x", "bitplan.planner.profiles.merge.merge"),
    "import": ("mixdq . --out x", "bitplan.planner.interop.foreign.import_folder"),
    "cost": ("a --out x", "bitplan.planner.outlines.retime.cost_candidates"),
    "check": ("a scenes --out x", "bitplan.planner.finetunes.check.check_profile"),
    "solve": ("a --memory 14% --candidates 3 --out x", "bitplan.planner.choice.answer.pose"),
    "sweep": ("a --out x", "bitplan.planner.views.run.sweep_problem"),
    "verify": ("p a", "bitplan.planner.choice.verify.check"),
    "predict": ("p a", "bitplan.planner.choice.joint.predict_plan"),
    "why": ("p a unet.x", "bitplan.planner.choice.why.explain_layer"),
    "apply": ("p scenes --out x.png", "bitplan.planner.applied.pipeline.load_planned"),
    "evaluate": ("p scenes --out .", "bitplan.planner.evaluation.evaluator.open_evaluator"),
    "bench": ("p scenes --out x", "bitplan.planner.evaluation.evaluator.open_subject"),
    "export": ("p --to gguf-recipe --out x", "bitplan.planner.interop.export.export_plan"),
    "inspect": ("a", "bitplan.planner.views.inspect.inspect_file"),
    "doctor": ("", "bitplan.planner.views.equipment.equipment"),
    "report": (". --out x", "bitplan.planner.page.html.write_report"),
    "explore": ("a", "bitplan.planner.page.local.run_server"),
}


@pytest.fixture(scope="module")
def plan(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plan") / "p"
    bitplan.solve(finished, path, memory="14%")
    return path


def interrupt(*_: Any, **__: Any) -> Any:
    raise Terminated(15)


def test_every_command_is_here() -> None:
    assert BEGUN.keys() == COMMANDS.keys()


@pytest.mark.parametrize("command", BEGUN)
def test_a_verb_that_has_only_begun_keeps_nothing(
    command: str, finished: Path, plan: Path, tmp_path: Path, command_line: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, place = BEGUN[command]
    (tmp_path / "p").write_bytes(plan.read_bytes())
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(finished.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(place, interrupt)
    before = set(tmp_path.iterdir())
    result = command_line(command, *words.split())
    ends = (0, "") if command == "explore" else (143, "bitplan: ended by SIGTERM; nothing was written\n")
    assert (result.exit_code, result.stderr) == ends
    assert set(tmp_path.iterdir()) == before


def test_a_sweep_keeps_its_plans_and_continues(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {"start": "10%", "stop": "40%", "points": 5}
    whole, out, solved = bitplan.sweep(finished, tmp_path / "whole", **asked), tmp_path / "run", list[float]()
    solve_points = sweeping.solve_points

    def some(data: Any, problems: Any, effort: Any) -> Any:
        for point in solve_points(data, problems, effort):
            if len(solved) == 3:
                solved.append(0)
                interrupt()
            solved.append(point[0].limit or 0)
            yield point

    monkeypatch.setattr(sweeping, "solve_points", some)
    with pytest.raises(Terminated) as stopped:
        bitplan.sweep(finished, out, **asked)
    assert stopped.value.__notes__ == [
        f"the plans of 3 of 5 limits are kept in {out}, and the same command continues from there"
    ]
    part = read_view(out / "sweep.json")
    assert [point.limit for point in part.points] == solved[:3] and len(list((out / "plans").iterdir())) == 3
    again = bitplan.sweep(finished, out, **asked)
    assert len(solved) == 6  # the three before, the interrupt, and the two that were left
    assert [(one.limit, one.picks) for one in again.points] == [(one.limit, one.picks) for one in whole.points]
    assert again.about == whole.about and read_view(out / "sweep.json") == again
    assert all(load_plan(out / str(point.plan)).predictions["total"] == point.totals for point in again.points)


def test_an_evaluation_keeps_the_report_of_what_it_measured(
    plan: Path, tmp_path: Path, command_line: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import bitplan.planner.evaluation.plans as measuring

    def result(name: str) -> PlanResult:
        return PlanResult(name, 1, (), {}, None, torch.zeros(1, 3, 8, 8))

    def measured(evaluator: Any, plan: Any, kernels: str, name: str) -> PlanResult:
        return result(name) if name == "p" else interrupt()

    monkeypatch.setattr("bitplan.planner.evaluation.evaluator.open_evaluator", lambda *_: None)
    monkeypatch.setattr(measuring, "evaluate_full", lambda *_: result("full precision"))
    monkeypatch.setattr(measuring, "evaluate_plan", measured)
    monkeypatch.setattr(measuring, "about", lambda *_: {"families": {}})
    other, out = tmp_path / "q", tmp_path / "out"
    other.write_bytes(plan.read_bytes())
    done = command_line("evaluate", plan, other, "scenes", "--out", out, "-q")
    assert done.stderr == (
        f"bitplan: ended by SIGTERM; the report on 1 of 2 plans is kept in {out}; the same command begins again\n"
    )
    assert {path.name for path in out.iterdir()} == {"report.md", "report.json", "images.png"}
    assert '"name": "p"' in (out / "report.json").read_text()


def test_pictures_are_kept_as_they_are_painted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bitplan.planner.verbs import use

    def run(conditions: Any, seed: int) -> torch.Tensor:
        return interrupt() if seed == 2 else torch.full((len(conditions), 3, 8, 8), seed / 4)

    monkeypatch.setattr(use, "BATCH", 1)
    subject = bitplan.Subject({"net": torch.nn.Linear(1, 1)}, run)
    with pytest.raises(Terminated) as stopped:
        bitplan.paint(None, subject, ["a", "b", "c"], tmp_path / "x.png")
    assert stopped.value.__notes__ == [f"wrote {tmp_path / 'x-1.png'}, {tmp_path / 'x-2.png'}"]
    assert {path.name for path in tmp_path.iterdir()} == {"x-1.png", "x-2.png"}
