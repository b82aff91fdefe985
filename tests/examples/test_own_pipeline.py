"""What docs/your-own-pipeline.md says works as it stands there."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import bitplan
from bitplan.planner.cli import main
from bitplan.planner.errors import UserError
from bitplan.planner.pipelines.references import typed
from bitplan.planner.pipelines.sources import load_subject
from bitplan.planner.pipelines.subject import run_subject
from bitplan.planner.pipelines.traced import examine

torch.set_num_threads(1)
ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/your-own-pipeline.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (code,) = blocks("python")
    (tmp_path / "own.py").write_text(code, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "own", raising=False)
    return tmp_path


def test_the_commands_run_as_written(written: Path) -> None:
    (code,), (commands,) = blocks("python"), blocks("sh")
    assert len([line for line in code.splitlines() if line and not line.startswith(("import", "from"))]) <= 20
    for line in commands.splitlines():
        tool, *words = shlex.split(line)
        done = CliRunner().invoke(main, words)
        assert tool == "bitplan" and done.exit_code == 0, done.output
    from bitplan.planner.pipelines.generation import Generation

    subject = load_subject(typed("own:subject"), Generation())
    before = run_subject(subject, subject.conditions, 0)
    bitplan.apply(subject, written / "own.plan.yaml")
    assert not torch.equal(run_subject(subject, subject.conditions, 0), before)
    bitplan.restore(subject)
    assert torch.equal(run_subject(subject, subject.conditions, 0), before)
    report = (written / "report/report.md").read_text()
    assert "output_nsr" in report and "| own " in report


def test_examples_are_as_short_as_they_say() -> None:
    for name in re.findall(r"`examples/(\w+)/`", TEXT):
        text = (ROOT / "examples" / name / "subject.py").read_text()
        lines = [line for line in text.splitlines() if line and not line.startswith(("import", "from", '"""'))]
        assert len(lines) <= 30, name


def test_a_component_that_is_a_layer_is_refused() -> None:
    layer = torch.nn.Linear(3, 3)
    subject = bitplan.Subject({"layer": layer}, lambda given, seed: layer(torch.stack(given)), [torch.ones(3)])
    with pytest.raises(UserError, match="layer is a layer without a parent module; put it into an nn.Sequential"):
        examine(subject, subject.conditions, names=("layer",))
