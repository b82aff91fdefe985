"""Names of files that are read from a file stay below its folder; files appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bitplan.plans.files import PathError, inside, written

OUTSIDE = (
    "/etc/passwd", "//host/share", "../x", "a/../../x", "a/..", "..", ".", "./x", "", "a//b", "a/", "C:/x", "C:x",
    "c:\\x", "a\\..\\x", "\\\\host\\share", "x\0.png", "x\n.png", "x\x7f", "CON", "nul.txt", "plans/com1.yaml", "x.",
    "x ", "x" * 256, "é" * 128, "\ud800", 7, None, ["x"],
)  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE, ids=lambda name: ascii(name)[:20])
def test_a_name_that_leaves_its_folder_or_is_no_name_everywhere_is_refused(name: object, tmp_path: Path) -> None:
    with pytest.raises(PathError) as refused:
        inside(tmp_path, name)
    assert "\n" not in str(refused.value) and str(refused.value).endswith("make the file again")


@pytest.mark.parametrize(
    "name", ["a", "a/b.yaml", "plans/bytes-12.5.plan.yaml", "..a", "...a/b", "é" * 127, "console.txt"]
)
def test_a_name_below_its_folder_is_its_path(name: str, tmp_path: Path) -> None:
    assert inside(tmp_path, name) == tmp_path / name


def test_links_may_stay_in_the_folder_and_not_leave_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "real").mkdir(parents=True)
    (folder / "near").symlink_to(folder / "real")
    (folder / "far").symlink_to(tmp_path)
    (folder / "round").symlink_to(folder / "round")
    assert inside(folder, "near/x") == folder / "near" / "x"
    for name in ("far", "far/x"):
        with pytest.raises(PathError, match="is a link that leaves"):
            inside(folder, name)
    (tmp_path / "same").symlink_to(folder)
    assert inside(tmp_path / "same", "real/x") == tmp_path / "same" / "real" / "x"


def test_a_pipe_that_nobody_reads_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError), written(pipe, "text") as partial:
        partial.write_text("x")
    assert pipe.is_fifo()
