"""Imports measurements that other tools published as profiles: the table of formats. Imports no torch.

A format is a module here with `read(folder) -> ForeignProfile` (see `base.py`), and a line in `FORMATS`.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

from bitplan.planner.errors import UserError
from bitplan.planner.texts import nearest


@dataclass(frozen=True)
class ForeignFormat:
    """A foreign format.

    Attributes:
        name: its name on the command line.
        module: the module that reads it, imported at first use.
        about: one line for tables.
    """

    name: str
    module: str
    about: str


FORMATS = {
    f.name: f
    for f in (
        ForeignFormat(
            "mixdq",
            "bitplan.planner.interop.foreign.mixdq",
            "MixDQ's sensitivity files of a UNet's weights (SQNR in dB, SSIM)",
        ),
    )
}


def format_named(name: str) -> ForeignFormat:
    """Returns the format of that name. Raises UserError with the nearest name."""
    if name not in FORMATS:
        raise UserError(f"there is no foreign format {name!r}{nearest(name, FORMATS)} (formats: {', '.join(FORMATS)})")
    return FORMATS[name]


def import_folder(name: str, folder: Path, out: Path) -> str:
    """Imports `folder` in the named format into the profile `out` and returns one line about the decisions made.

    The same call resumes an interrupted import. Raises UserError, ProfileError.
    """
    module = format_named(name).module
    from bitplan.planner.interop.foreign.base import save

    profile = importlib.import_module(module).read(folder)
    save(profile, out)
    return str(profile.header["source"]["decided"])
