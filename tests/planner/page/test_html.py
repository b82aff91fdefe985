"""The page of a report as a file: what it holds, what it refuses, what it can never do."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from PIL import Image

import bitplan
from bitplan.planner.page import pictures
from bitplan.planner.page.html import MEANINGS, page_of, write_report
from bitplan.planner.page.palette import luminance, palette_of
from bitplan.planner.views.view import read_view, write_view
from bitplan.sensitivity.metrics import METRICS
from tests.planner.support import views

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\u2028{{ 7 * 7 }}<!--"


class Read(HTMLParser):
    """Elements of a page and the texts of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script" and data.strip():
            self.scripts.append((self.tags[-1][1], data))

    def data(self, name: str) -> Any:
        return next(json.loads(text) for attributes, text in self.scripts if attributes.get("id") == name)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return views.run_in(tmp_path / "run", views.view_of())


def test_the_command_writes_one_file(run: Path, tmp_path: Path, command_line: Callable[..., Result]) -> None:
    out = tmp_path / "report.html"
    result = command_line("report", run, "--out", out)
    assert result.exit_code == 0 and result.output == f"wrote {out}; next: open it in a browser\n"
    assert {path.name for path in tmp_path.iterdir()} == {"run", "report.html"}
    data = Read(out.read_text()).data("data")
    assert [point["name"] for point in data["runs"][0]["points"]] == [point.name for point in views.view_of().points]


def test_the_same_input_gives_the_same_bytes(run: Path, tmp_path: Path) -> None:
    for name in ("a.html", "b.html"):
        bitplan.report([run], tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_nothing_is_fetched_and_only_its_own_scripts_run(run: Path) -> None:
    read = Read(page_of({"run": read_view(run / "sweep.json")}, {"run": run}))
    for tag, attributes in read.tags:
        for name in ("src", "href", "action", "srcset", "data"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#")), (tag, attributes)
        assert not [name for name in attributes if name.startswith("on")]
    policy = next(a["content"] for t, a in read.tags if t == "meta" and a.get("http-equiv"))
    assert policy and "default-src 'none'" in policy and "connect-src 'none'" in policy
    run_here = [text for attributes, text in read.scripts if attributes.get("type") != "application/json"]
    hashes = {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in run_here}
    assert hashes == set(re.findall(r"'sha256-([^']+)'", policy)) and len(run_here) > 8
    assert not re.search(r"script-src[^;]*unsafe", policy)


def test_names_and_prompts_cannot_leave_their_place(tmp_path: Path) -> None:
    view = views.view_of()
    cells = (replace(view.cells[0], layer=HOSTILE, block=HOSTILE), *view.cells[1:])
    hostile = replace(view, cells=cells, model={"name": HOSTILE, "pipeline": HOSTILE}, about={HOSTILE: HOSTILE})
    folder = views.run_in(tmp_path / "run", hostile, (HOSTILE, HOSTILE))
    written = read_view(folder / "sweep.json")  # a role of its own is refused in the file, and harmless on the page
    written = replace(written, cells=(replace(written.cells[0], role=HOSTILE), *written.cells[1:]))
    text = page_of({HOSTILE: written}, {HOSTILE: folder})
    read, plain = Read(text), Read(page_of({"run": view}))
    assert [tag for tag, _ in read.tags] == [tag for tag, _ in plain.tags]
    assert "<img src" not in text and "alert(1)</script" not in text
    assert not any("\u2028" in script for _, script in read.scripts)
    assert "{{ 7 * 7 }}&lt;!--" in text
    assert read.data("data")["cells"][0][0]["layer"] == HOSTILE


def test_numbers_that_are_none_are_null() -> None:
    view = views.view_of()
    odd = replace(view.points[0], gap=float("inf"), objective=float("nan"))
    data = Read(page_of({"run": replace(view, points=(odd,))})).data("data")
    assert data["runs"][0]["points"][0]["gap"] is None and data["runs"][0]["points"][0]["objective"] is None


def test_runs_of_one_model_hold_its_layers_once_and_are_told_apart(run: Path, tmp_path: Path) -> None:
    other = views.run_in(tmp_path / "other", replace(views.view_of(by="alignment"), budgets={"bytes": 2**20}))
    write_report([run, other, views.run_in(tmp_path / "again", views.view_of())], tmp_path / "r.html")
    data = Read((tmp_path / "r.html").read_text()).data("data")
    assert len(data["cells"]) == 1 and [one["cells"] for one in data["runs"]] == [0, 0, 0]
    assert data["labels"] == ["run: memory varies", "other: alignment loss varies, memory at most 1 MiB",
                              "again: memory varies"]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "wrong"),
    [("/etc/passwd", "must stay below"), ("../secret.png", "must stay below"), ("a/../../b.png", "must stay below"),
     ("..\\b.png", "a backslash"), ("", "must stay below"), ("gone.png", "cannot read the picture"),
     ("link.png", "is a link that leaves"), ("text.png", "is not a picture"),
     ("picture.tiff", "is TIFF, and a page shows")],
)  # fmt: skip
def test_pictures_elsewhere_missing_or_none_are_refused(run: Path, path: str, wrong: str, command_line: Any) -> None:
    Image.new("RGB", (2, 2)).save(run.parent / "secret.png")
    Image.new("RGB", (2, 2)).save(run / "picture.tiff")
    (run / "link.png").symlink_to(run.parent / "secret.png")
    (run / "text.png").write_text("nothing to see")
    view = read_view(run / "sweep.json")
    write_view(replace(view, full=replace(view.full, pictures=(path, path))), run / "sweep.json")
    result = command_line("report", run, "--out", run / "r.html")
    assert result.exit_code == 2 and wrong in result.stderr and result.stderr.count("\n") == 1
    assert not (run / "r.html").exists()


def test_what_is_no_run_and_what_cannot_be_written(run: Path, tmp_path: Path, command_line: Any) -> None:
    for arguments, wrong in (([tmp_path], "make it with `bitplan sweep`"), ([run, run], "twice; name it once")):
        result = command_line("report", *arguments, "--out", tmp_path / "r.html")
        assert result.exit_code == 2 and wrong in result.stderr and result.stderr.count("\n") == 1
    result = command_line("report", run, "--out", tmp_path / "no" / "r.html")
    assert result.exit_code == 2 and "choose another --out" in result.stderr


def test_pictures_are_as_painted_while_there_is_room_then_smaller(tmp_path: Path) -> None:
    import numpy as np

    random = np.random.default_rng(0)
    for i in range(4):
        noise = random.integers(0, 255, (160, 160, 3)).astype(np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{i}.png")
    asked = [(tmp_path, f"{i}.png") for i in (0, 1, 2, 3, 0)]
    whole = pictures.album_of(asked)
    assert whole.fit is None and len(whole.addresses) == 4 and len(whole.place) == 4
    encoded = base64.b64encode((tmp_path / "0.png").read_bytes()).decode()
    assert whole.addresses[0] == f"data:image/png;base64,{encoded}"
    size = sum((tmp_path / f"{i}.png").stat().st_size for i in range(4))
    small = pictures.album_of(asked, size // 4)
    assert small.fit is not None and sum(len(a) * 3 / 4 for a in small.addresses) < size / 4 + 200
    assert all(address.startswith("data:image/webp;base64,") for address in small.addresses)
    assert small == pictures.album_of(asked, size // 4)


def test_more_bits_are_darker_in_any_eye_and_numbers_can_be_read() -> None:
    for bits in ((2, 3, 4, 5, 6, 8, 16), (2, 32), (4,)):
        palette = palette_of(bits)
        assert list(palette) == list(bits)
        lights = [luminance(bytes.fromhex(paper[1:])) for paper, _ in palette.values()]
        assert all(a > b for a, b in zip(lights, lights[1:], strict=False))
        for paper, ink in palette.values():
            light, dark = sorted(luminance(bytes.fromhex(one[1:])) for one in (paper, ink))[::-1]
            assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_metrics_are_explained_as_their_table_does() -> None:
    for name in set(MEANINGS) & set(METRICS):
        assert MEANINGS[name] == METRICS[name].says
    assert {"nsr", "dssim", "clip_drop", "embed_drift"} <= set(MEANINGS)


def test_page_files_are_short() -> None:
    folder = Path(str(files("bitplan.planner.page"))) / "assets"
    for path in folder.iterdir():
        assert path.read_text().count("\n") < 300, path.name
