"""The pages build without a warning, and the files, names and fields in them exist."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import bitplan
from bitplan.plans.formats.base import Format
from bitplan.plans.inputs.base import Inputs
from bitplan.plans.kernels import Kernel
from bitplan.plans.transforms.base import Transform
from tests.browser import MISSING, browser, chromium

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", folder / "trees"]
    done = subprocess.run([*build, DOCS, folder / "html"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stderr} (a page that is in no list: name it in docs/index.md)"
    return folder / "html"


@pytest.mark.timeout(600)
def test_the_site_builds_without_a_warning_and_needs_no_network_to_be_read(site: Path) -> None:
    for page in DOCS.glob("*.md"):
        text = (site / page.with_suffix(".html").name).read_text()
        assert not re.findall(r"<(?:script|img|iframe)[^>]*src=\"(?:https?:)?//|<link[^>]*stylesheet[^>]*//", text)
    math = (site / "formulation.html").read_text()
    assert math.count("<math") > 30 and "$$" not in math


@pytest.mark.timeout(600)
@pytest.mark.skipif(chromium() is None, reason=MISSING)
def test_no_page_is_wider_than_the_window(site: Path) -> None:
    boxes = "[document.scrollingElement, document.querySelector('.content')]"
    with browser() as opened:
        for width in (1280, 390):
            page = opened.new_page(viewport={"width": width, "height": 800})
            for file in site.glob("*.html"):
                page.goto(file.as_uri())
                assert max(page.evaluate(f"{boxes}.map(one => one.scrollWidth - one.clientWidth)")) <= 0, (
                    file.name,
                    width,
                )


def test_every_verb_and_noun_of_python_is_in_the_reference() -> None:
    documented = re.findall(
        r"^\.\. auto(?:function|class):: (?:bitplan\.)?(\w+)$", (DOCS / "python.md").read_text(), re.M
    )
    assert set(bitplan.__all__) == set(documented) & set(bitplan.__all__)


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, with the links and backticks of names removed."""
    page = re.sub(r"\[(`[^`]+`)\]\([^)]+\)", r"\1", page)
    table = re.search(rf"^#+ {heading}[\s\S]*?^\|[-|]+\|\n((?:\|.*\n)+)", page, re.M)
    assert table, heading
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in table[1].splitlines()]


def named(text: str) -> Any:
    """The object that "`NAME`, `file.py`" names."""
    name, path = re.split(r"`?, `", text)
    return getattr(
        import_module("bitplan." + path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")), name
    )


def test_the_families_of_the_page_are_those_of_the_code() -> None:
    page = (DOCS / "add-a-part.md").read_text()
    for family, table, noun, test in rows(page, "Add a format"):
        members = named(table)
        members = list(members.values()) if isinstance(members, dict) else list(members)
        assert members and all(isinstance(member, named(noun)) for member in members), family
        assert (ROOT / test).exists(), test


@pytest.mark.parametrize(
    ("heading", "member"),
    [("A weight format", Format), ("An input format", Inputs), ("A transform", Transform), ("A kernel", Kernel)],
)
def test_the_fields_of_the_page_are_those_of_the_code(heading: str, member: type) -> None:
    page = (DOCS / "add-a-part.md").read_text()
    assert [row[0] for row in rows(page, heading)] == [field.name for field in fields(member)]


def test_the_names_in_the_formulation_exist() -> None:
    code = "".join(path.read_text() for room in ("planner", "solvers") for path in (ROOT / room).rglob("*.py"))
    for name in re.findall(r"`(_?[a-z]+(?:_[a-z]+)+|[A-Z][a-z]+)`", (DOCS / "formulation.md").read_text()):
        assert re.search(rf"\b(?:def|class) {name}\b", code), name


def test_files_that_pages_name_exist() -> None:
    for page in DOCS.glob("*.md"):
        for path in re.findall(r"`((?:planner|plans|solvers|sensitivity|docs|benchmarks|examples|tests)/[\w/.-]+)`",
                               page.read_text()):  # fmt: skip
            assert (ROOT / path).exists() or path.endswith("gpu_kernels.json"), f"{page.name}: {path}"
