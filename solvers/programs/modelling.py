"""Imports PuLP, also beside a highspy that it fails on: PuLP reads names of highspy while it is imported."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pulp as pulp


def _imported() -> Any:
    """Return PuLP. Where its import fails, it is imported as if highspy were not installed."""
    try:
        return import_module("pulp")
    except Exception:  # a broken installation may raise anything
        for name in [name for name in sys.modules if name.partition(".")[0] == "pulp"]:
            del sys.modules[name]
    held = sys.modules.pop("highspy", None)
    sys.modules["highspy"] = None  # type: ignore[assignment]  # "not installed", for the import system
    try:
        return import_module("pulp")
    finally:
        del sys.modules["highspy"]
        if held is not None:
            sys.modules["highspy"] = held


if not TYPE_CHECKING:
    pulp = _imported()
