"""Writes the page: one HTML file that holds its data and its scripts, and needs no network."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from bitplan.planner.errors import UserError
from bitplan.planner.files import write_text
from bitplan.planner.graph.layers import ROLES
from bitplan.planner.page.palette import palette_of
from bitplan.planner.page.pictures import Album, album_of
from bitplan.planner.units import show_bytes
from bitplan.planner.views.view import VIEW, Variant, View, read_view
from bitplan.sensitivity.metrics import METRICS

SCRIPTS = ("words.js", "source.js", "chart.js", "numbers.js", "pictures.js", "layout.js", "map.js", "layer.js",
           "changes.js", "main.js")  # fmt: skip


LIVE_SCRIPTS = ("live_ask.js", "live_limits.js", "live_fixed.js", "live_take.js", "live.js")  # where a server solves


MEANINGS = {
    "quality": "how far the outputs are from full precision's",
    "alignment": "how much less they match the prompt",
    **{metric.name: metric.says for metric in METRICS.values()},
}


_PAGE = files("bitplan.planner.page") / "assets"


@dataclass(frozen=True)
class Script:
    """A script of the page."""

    name: str
    text: str

    @property
    def check(self) -> str:
        """The hash by which the page's policy allows the script."""
        return "sha256-" + base64.b64encode(hashlib.sha256(self.text.encode()).digest()).decode()

    @property
    def markup(self) -> Markup:
        """The text between script tags. Raises ValueError where it would end the script."""
        if "</script" in self.text.lower() or "<!--" in self.text:
            raise ValueError(
                f"{self.name} cannot be in a page: it contains the end of a script or the start of a comment"
            )
        return Markup(self.text)


def page_of(views: Mapping[str, View], folders: Mapping[str, Path] | None = None, *, live: bool | str = False) -> str:
    """The page as HTML, the same for the same input.

    Args:
        views: run -> its view; the page opens with the first one.
        folders: run -> folder of its pictures.
        live: whether a server solves for the page, or the digest of the profile that it solves.

    Raises UserError for pictures that are missing or lie outside their folder.
    """
    album = album_of(_pictures(views, folders or {}))
    data = _data(views, folders or {}, album, live)
    scripts = [_script(name) for name in (*SCRIPTS, *(LIVE_SCRIPTS if live else ()))]
    plotly = Script("plotly.js", _plotly())  # chart.js runs it after everything else is shown
    first = next(iter(views.values()))
    words = {"title": title_of(first), "subtitle": _subtitle(views), "live": live, "labels": data["labels"]}
    text = {"data": _embedded(data), "pictures": _embedded(album.addresses)}
    policy = _policy([plotly, *scripts], live)
    style = Markup("".join(_text(name) for name in ("page.css", *(("live.css",) if live else ()))))
    return _environment().get_template("page.html.j2").render(
        **words, **text, policy=policy, plotly=plotly, scripts=scripts, style=style
    )  # fmt: skip


def write_report(runs: Sequence[Path], out: Path) -> None:
    """Write the page of all runs, which are folders that `bitplan sweep` wrote. Raises UserError."""
    views: dict[str, View] = {}
    folders: dict[str, Path] = {}
    for folder in runs:
        if folder in folders.values():
            raise UserError(f"{folder} is listed twice; leave one out")
        name = folder.name if folder.name not in views else str(folder)
        views[name], folders[name] = read_view(folder / VIEW), folder
    write_text(page_of(views, folders), out, "page")


def title_of(view: View) -> str:
    """The title of the page."""
    return f"{Path(str(view.model.get('name', 'a model'))).name}: which layers at how many bits"


def label_of(view: View) -> str:
    """The label of a run: what varies, and what is fixed."""
    fixed = [f"{_column(name)} at most {_amount(name, limit)}" for name, limit in view.budgets.items()]
    return f"{_column(view.by)} varies" + (f", {', '.join(fixed)}" if fixed else "")


def _column(name: str) -> str:
    return {"bytes": "memory", "ms": "time"}.get(name, f"{name} loss")


def _amount(name: str, value: float) -> str:
    return show_bytes(value) if name == "bytes" else f"{value:.3g}{' ms' if name == 'ms' else ''}"


def _subtitle(views: Mapping[str, View]) -> str:
    view = next(iter(views.values()))
    plans = sum(len([p for p in one.points if p.picks]) for one in views.values())
    pipeline = view.model.get("pipeline", "")
    parts = ", ".join(str(part) for part in view.model.get("components", ()))
    source = " of ".join(filter(None, (parts, str(pipeline))))
    texts = [f"{len(view.cells):,} layers of {source}", f"{plans} plans" if plans else ""]
    return "; ".join(filter(None, (*texts, label_of(view) if len(views) == 1 else "")))


def _pictures(views: Mapping[str, View], folders: Mapping[str, Path]) -> list[tuple[Path, str]]:
    return [
        (folders[name], path)
        for name, view in views.items() if name in folders
        for variant in (view.full, *view.points, *view.uniform) for path in variant.pictures
    ]  # fmt: skip


def _data(views: Mapping[str, View], folders: Mapping[str, Path], album: Album, live: bool | str) -> dict[str, Any]:
    """The data that the page's scripts read, without the pictures."""
    labels = [label_of(view) for view in views.values()]
    if len(set(labels)) < len(labels):
        labels = [f"{name}: {label}" for name, label in zip(views, labels, strict=True)]
    cells: list[Any] = []
    runs = []
    for (name, view), label in zip(views.items(), labels, strict=True):
        if view.cells not in cells:
            cells.append(view.cells)
        data = run_data(view, folders.get(name), album)
        runs.append(data | {"cells": cells.index(view.cells), "label": label})
    bits = {option.bits for some in cells for cell in some for option in cell.options}
    return {
        "live": live, "runs": runs, "labels": labels, "cells": [[asdict(cell) for cell in some] for some in cells],
        "roles": ROLES, "meanings": MEANINGS, "palette": palette_of(bits),
        "fit": None if album.fit is None else str(album.fit),
    }  # fmt: skip


def run_data(view: View, folder: Path | None, album: Album) -> dict[str, Any]:
    """A view as plain data, without its cells, with pictures as indices into the album."""

    def variant(one: Variant) -> dict[str, Any]:
        pictures = [] if folder is None else [album.place[folder, path] for path in one.pictures]
        return asdict(one) | {"pictures": pictures}

    data = {name: getattr(view, name) for name in ("model", "by", "weights", "budgets", "smallest", "about")}
    data["columns"] = [asdict(column) for column in view.columns]
    data["conditions"] = list(view.conditions)
    several = {name: [variant(one) for one in getattr(view, name)] for name in ("points", "uniform")}
    return data | several | {"full": variant(view.full)}


def _embedded(data: Any) -> Markup:
    """JSON for a script element, which nothing in it can end."""
    text = json.dumps(_short(data), separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _short(data: Any) -> Any:
    """The data with floats rounded to six digits, more than any measurement here has."""
    if isinstance(data, float):
        return float(f"{data:.6g}") if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {key: _short(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_short(value) for value in data]
    return data


def _policy(scripts: Sequence[Script], live: bool | str) -> str:
    """The content security policy: scripts by their hashes, no requests except to the page's own server. All styles are
    allowed, because Plotly sets them."""
    allowed = " ".join(f"'{script.check}'" for script in scripts)
    images, requests = ("data: blob: 'self'", "'self'") if live else ("data:", "'none'")
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src {images}; "
        f"connect-src {requests}; base-uri 'none'; form-action 'none'"
    )


def _script(name: str) -> Script:
    return Script(name, _text(name))


def _plotly() -> str:
    text: str = get_plotlyjs()
    return text.replace("\r\n", "\n").replace("\r", "\n")  # as a browser reads and hashes it


def _text(name: str) -> str:
    return (_PAGE / name).read_text("utf-8").replace("\r\n", "\n")


def _environment() -> Environment:
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
                       keep_trailing_newline=True, loader=FunctionLoader(_text))  # fmt: skip
