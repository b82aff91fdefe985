"""How Sphinx builds the pages of this folder: `make docs`. Nothing is fetched, neither here nor by who reads them."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from docutils.utils.math import latex2mathml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import bitplan  # noqa: E402

project, author, release = "BitPlan", "the BitPlan authors", bitplan.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinx_click"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
maximum_signature_line_length = 100
html_theme, html_title = "furo", "BitPlan"
html_math_renderer = "mathml"
html_static_path, html_css_files = ["_static"], ["pages.css"]
html_show_sphinx = html_show_copyright = False
_PAGE = re.compile(r"`docs/([\w-]+\.md)`")
_TOLD = re.compile(r"^[a-z_\\]+(, [a-z_\\]+)*: ", re.MULTILINE)
_CODE = re.compile(r"(?<=\n\n)( {4}.*(\n|$))+")


def link_pages(app: Any, name: str, text: list[str]) -> None:
    """Pages name each other, and are read as plain files, as `docs/NAME.md`: here these are links."""
    text[0] = _PAGE.sub(r"[`docs/\1`](\1)", text[0])


def write_math(writer: Any, node: Any) -> None:
    """As MathML, which browsers lay out themselves: no script, no fonts, no network."""
    from docutils.nodes import SkipNode

    block = node.tagname == "math_block"
    writer.body.append(latex2mathml.tex2mathml(node.astext(), as_block=block))
    raise SkipNode


def write_docstring(app: Any, what: str, name: str, told: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are plain text: names in single backticks, what an argument is on a line of its own, code indented."""
    text = _CODE.sub(r"::\n\n\g<0>", "\n".join(lines))
    parts = re.split(r"(`[^`]+`|^ {4}.*$)", text, flags=re.MULTILINE)
    parts[::2] = [_TOLD.sub(r"\n\g<0>", re.sub(r"[*|\\_]", r"\\\g<0>", part)) for part in parts[::2]]
    parts[1::2] = [f"`{part}`\\ " if part.startswith("`") else part for part in parts[1::2]]
    lines[:] = "".join(parts).split("\n")


def setup(app: Any) -> dict[str, Any]:
    app.add_html_math_renderer("mathml", (write_math, None), (write_math, None))
    app.connect("source-read", link_pages)
    app.connect("autodoc-process-docstring", write_docstring)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
