"""The steps of docs/tutorial.md and docs/notebook.ipynb work, in order, in one folder that is empty at first."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from bitplan.planner.profiles.profile import content_digest, open_profile
from tests.docs.executed import ROOT, differences, run, steps_of

PAGE, NOTEBOOK = ROOT / "docs/tutorial.md", ROOT / "docs/notebook.ipynb"


def digest(profile: Path) -> str:
    with open_profile(profile) as store:
        return content_digest(store)


@pytest.mark.timeout(900)
def test_they_run_and_show_what_they_print(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This is one test because the notebook uses the finished profile of the tutorial."""
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text("utf-8")
    steps, names = steps_of(text), dict[str, Any]()
    assert len(steps) > 10 and not any(tmp_path.iterdir())
    for step in steps:
        assert not differences(step.shown, run(step, names)), step.code
    for name in re.findall(r"!\[.*?\]\(tutorial/(.*?)\)", text):
        assert (tmp_path / name).exists() and (ROOT / "docs/tutorial" / name).exists()

    before = digest(tmp_path / "scenes.profile")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))))
    notebook = nbformat.read(NOTEBOOK, 4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert digest(tmp_path / "scenes.profile") == before
    kinds = {kind for cell in notebook.cells for output in cell.get("outputs", ()) for kind in output.get("data", ())}
    assert {"application/vnd.plotly.v1+json", "image/png"} <= kinds


def test_the_notebook_is_kept_without_outputs() -> None:
    code = [cell for cell in nbformat.read(NOTEBOOK, 4).cells if cell.cell_type == "code"]
    assert len(code) > 5 and not any(cell.outputs or cell.execution_count for cell in code)


def test_differences_of_outputs_are_reported() -> None:
    old = "layers 133\n| scheme   | ms    | nsr |\n|------|----|---|\n| w8a8     | 41.5 | 0.0020 |\ntook 3.1 s\n"
    assert not differences(old, old.replace("41.5", "7e+03").replace("3.1 s", "60 s").replace("0.0020", "0.0021"))
    assert differences(old, old.replace("0.0020", "0.0040")) == ["0.0020 became 0.0040"]
    speed = "int8 products: 3.6x float32 (int_mm; VNNI)"
    assert not differences(speed, "int8 products: 1.1x float32 (float_blocks; AVX2)")
    assert differences(old, old.replace("w8a8", "w4a8")) and differences(old, old.replace("took", "took about"))
    assert differences(old, old.replace("133", "100")) == ["133 became 100"]
