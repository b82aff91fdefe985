"""Links of README and pages resolve, file names in them are links, and the verbs that they name exist."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

import bitplan
from bitplan.planner.cli import main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OTHERS = [ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "examples").glob("*/README.md")),
          ROOT / "planner/scenes/MODEL_CARD.md"]  # fmt: skip
CODE = re.compile(r"^(```+)[\s\S]*?^\1|^    .*$", re.M)  # blocks in fences, and indented lines
LINK = re.compile(r"\]\(([^)\s]+)\)")
NAME = re.compile(r"(?<!\[)`([\w.-]+(?:/[\w.-]+)*/?)`(?!\])")


def prose(page: Path) -> str:
    return CODE.sub("", page.read_text("utf-8"))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def is_file(name: str) -> bool:
    """Whether a name in backticks is that of a page, a file or a folder of the repository."""
    return ("/" in name.strip("/") or name.endswith(".md")) and (ROOT / name).exists()


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page: Path) -> None:
    for target in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists() and ROOT in file.resolve().parents, target
        assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_of_files_are_links(page: Path) -> None:
    bare = [name for name in NAME.findall(prose(page)) if is_file(name)]
    assert not bare, f"write [`{bare[0]}`]({os.path.relpath(ROOT / bare[0], page.parent)})"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_verbs_that_are_named_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    for name in re.findall(r"`bitplan\s+([a-z]\S*?)[\s`]", text):
        assert name in main.commands, name
    for name in re.findall(r"\bbitplan\.([a-z_]+)\b(?!\.)", text):
        assert hasattr(bitplan, name), name
