"""Profiles in older formats."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from bitplan.planner.profiles.tables import statements


def older(source: Path, out: Path) -> Path:
    """Write the same profile in format 2, which has neither errors nor fitted parameters."""
    out.write_bytes(source.read_bytes())
    with closing(sqlite3.connect(out)) as db:
        costs = db.execute("SELECT layer, scheme, bytes, ms, kernel, simulated FROM costs").fetchall()
        db.execute("DROP TABLE costs")
        db.execute("DROP TABLE parameters")
        db.execute(next(statement for statement in statements(2) if "TABLE costs" in statement))
        db.executemany("INSERT INTO costs VALUES (?, ?, ?, ?, ?, ?)", costs)
        db.execute("PRAGMA user_version = 2")
        db.commit()
    return out
