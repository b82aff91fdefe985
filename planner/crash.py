"""Writes the full report of an error that BitPlan did not foresee. Nothing here raises."""

from __future__ import annotations

import os
import platform
import shlex
import sys
import tempfile
import time
import traceback
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("bitplan", "torch", "diffusers", "transformers", "numpy", "pulp", "highspy", "click", "rich", "ray")


def write_report(error: BaseException, doing: str) -> Path | None:
    """Write the error's traceback, the versions and the command line to a new file in the folder for temporary files,
    else in the current one, and return its path; None where neither can be written."""
    for folder in (None, "."):
        try:
            number, path = tempfile.mkstemp(".txt", "bitplan-", folder)
            with os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(_text(error, doing))
            return Path(path)
        except Exception:  # a full disk, or no memory: the error itself is still told
            continue
    return None


def where_reported(error: BaseException, doing: str) -> str:
    """Write the report, and say where it is."""
    path = write_report(error, doing)
    return f"the full report is in {path}" if path else "no report could be written: there is no room for it"


def _text(error: BaseException, doing: str) -> str:
    lines = [
        f"{doing} failed on {time.strftime('%Y-%m-%d %H:%M:%S %z')}",
        f"command line: {shlex.join(sys.argv)}",
        f"folder: {_folder()}",
        f"Python {platform.python_version()} on {platform.platform()}",
        *(f"{name} {_version(name)}" for name in PACKAGES),
    ]
    return "\n".join(lines) + "\n\n" + "".join(traceback.format_exception(error))


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was deleted
        return "deleted"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
