"""Measurements that other tools published, as profiles: a table of the formats. Imports no torch.

A format is a module here with `read(folder) -> Imported` (see `base.py`), and a line in `FORMATS`.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

from bitplan.planner.errors import UserError  # noqa: F401


@dataclass(frozen=True)
class ForeignFormat:
    """A foreign format. module: what reads it, imported when it is asked for; about: one line on what it is."""

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


def import_folder(name: str, folder: Path, out: Path) -> str:
    """Read `folder` in the format of that name into the profile `out`, and say in one line what had to be decided.

    An import that was interrupted is finished by the same call. Raises UserError, ProfileError.
    """
    if name not in FORMATS:
        raise UserError(f"there is no foreign format {name!r}; choose {' or '.join(FORMATS)}")
    from bitplan.planner.interop.foreign.base import save

    found = importlib.import_module(FORMATS[name].module).read(folder)
    save(found, out)
    return str(found.header["source"]["decided"])
