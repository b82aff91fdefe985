"""Sphinx settings of these pages, built by `make docs`. Neither the build nor a reader needs a network."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from docutils.utils.math import latex2mathml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))

import bitplan  # noqa: E402

project, author, release = "BitPlan", "the BitPlan authors", bitplan.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_click"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
napoleon_numpy_docstring, napoleon_use_ivar = False, True
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
maximum_signature_line_length = 100
html_theme, html_title = "furo", "BitPlan"
html_math_renderer = "mathml"
html_static_path, html_css_files = ["_static"], ["pages.css"]
html_show_sphinx = html_show_copyright = False
_ELSEWHERE = re.compile(r"\[(`[^`\]]+`)\]\(\.\./[^)]*\)")
_PARAMETER = re.compile(r"^[a-z_\\]+(, [a-z_\\]+)*: ", re.MULTILINE)  # of an older docstring, on a line of its own
_CODE = re.compile(r"((?<=\n\n)(?: {4}.*(?:\n|$))+)")
_NAME = re.compile(r"(`[^`]+`)")
_BEFORE_NAPOLEON = 400  # extensions listen at 500


def name_files(app: Any, name: str, text: list[str]) -> None:
    """Turn links to files beside docs/ into their names: pages are also read in the repository, where the files are."""
    text[0] = _ELSEWHERE.sub(r"\1", text[0])


def write_math(writer: Any, node: Any) -> None:
    """Write a formula as MathML, which browsers render without scripts, fonts or a network."""
    from docutils.nodes import SkipNode

    block = node.tagname == "math_block"
    writer.body.append(latex2mathml.tex2mathml(node.astext(), as_block=block))
    raise SkipNode


def write_docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Turn a docstring in plain text into reStructuredText: names stand in single backticks, and code is indented."""
    parts = _CODE.split("\n".join(lines))
    parts[::2] = [_escaped(part) for part in parts[::2]]
    parts[1::2] = [f"::\n\n{part}" for part in parts[1::2]]
    lines[:] = "".join(parts).split("\n")


def _escaped(text: str) -> str:
    parts = _NAME.split(text)
    parts[::2] = [_PARAMETER.sub(r"\n\g<0>", re.sub(r"[*|\\_]", r"\\\g<0>", part)) for part in parts[::2]]
    parts[1::2] = [f"`{part}`\\ " for part in parts[1::2]]
    return "".join(parts)


def setup(app: Any) -> dict[str, Any]:
    app.add_html_math_renderer("mathml", (write_math, None), (write_math, None))
    app.connect("source-read", name_files)
    app.connect("autodoc-process-docstring", write_docstring, priority=_BEFORE_NAPOLEON)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
