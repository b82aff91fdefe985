"""What a stranger's sweep.json names is never read, written or deleted outside the folder of the sweep."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import bitplan
from bitplan.planner.views.painting import save_pictures
from bitplan.planner.views.run import view_in
from bitplan.plans.files import PathError


@pytest.fixture(scope="module")
def swept(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("swept") / "RUN"
    bitplan.sweep(finished, out, points=3)
    return out


@pytest.fixture
def spoilt(swept: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of a sweep whose first point has other entries."""

    def make(**entries: Any) -> Path:
        run = tmp_path / "RUN"
        (run / "plans").mkdir(parents=True)
        data = json.loads((swept / "sweep.json").read_text())
        data["points"][0] |= entries
        (run / "sweep.json").write_text(json.dumps(data))
        return run

    return make


@pytest.mark.parametrize("how", ["absolute", "up", "beside", "link"])
def test_a_plan_outside_is_not_deleted(how: str, spoilt: Any, finished: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious.yaml"
    names = {
        "absolute": str(precious),
        "up": "../precious.yaml",
        "beside": "notes.yaml",
        "link": "plans/far/precious.yaml",
    }
    run = spoilt(plan=names[how])
    (run / "plans" / "far").symlink_to(tmp_path)
    for file in (precious, run / "notes.yaml"):
        file.write_text("keep me")
    try:
        bitplan.sweep(finished, run, points=2)
    except PathError as refused:
        assert how == "link" and "is a link that leaves" in str(refused)
    assert precious.read_text() == (run / "notes.yaml").read_text() == "keep me"


@pytest.mark.parametrize(
    ("field", "value"), [("name", "../../outside"), ("pictures", ["/etc/passwd"]), ("plan", "a\0b")]
)
def test_such_a_sweep_is_none(field: str, value: object, spoilt: Any, command_line: Any, tmp_path: Path) -> None:
    run = spoilt(**{field: value})
    assert view_in(run) is None
    result = command_line("report", run, "--out", tmp_path / "r.html")
    assert result.exit_code == 2 and "is refused as a file name" in result.stderr and result.stderr.count("\n") == 1


def test_pictures_are_not_written_through_names_or_links(tmp_path: Path) -> None:
    run, outside = tmp_path / "RUN", tmp_path / "outside"
    (run / "images" / "link").mkdir(parents=True)
    outside.mkdir()
    (run / "images" / "link" / "0.webp").symlink_to(outside / "0.webp")
    (run / "images" / "far").symlink_to(outside)
    for name in ("../../outside", "far", "link", str(outside)):
        with pytest.raises(PathError):
            save_pictures(run, name, torch.zeros(1, 3, 4, 4), "images")
    assert not list(outside.iterdir())
    assert save_pictures(run, "full precision", torch.zeros(1, 3, 4, 4), "images") == ("images/full-precision/0.webp",)
