"""Opens the database of a profile so that it runs nothing and touches no other file. Imports no torch.

SQLite follows what a file and its neighbours say: a journal may name a further file to delete, a write-ahead log holds
other pages, views, triggers and computed columns run expressions. A profile has none of these, so each is refused.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Collection
from pathlib import Path

from bitplan.plans.checks import shown
from bitplan.plans.reading import read_bytes

LARGEST_VALUE = 2**30 - 2**20  # bytes of one text or blob
_HEADER = 100  # bytes before the first page
_ROLLBACK = 1  # the version of the file format for a rollback journal; 2 is for a write-ahead log
_JOURNAL_END = bytes.fromhex("d9d505f920a163d7")  # after it names another file


def file_problem(path: Path) -> str | None:
    """Returns why SQLite must not open the file at `path`, or None. Raises OSError where it cannot be read."""
    start = read_bytes(path, None, _HEADER)
    if start[:6] == b"SQLite" and len(start) == _HEADER and set(start[18:20]) != {_ROLLBACK}:
        return "it is in write-ahead mode, which no profile is; run `PRAGMA journal_mode = DELETE` in it"
    log, journal = (path.with_name(path.name + ending) for ending in ("-wal", "-journal"))
    if log.exists() or log.is_symlink():
        return f"{log.name} lies beside it, which no profile has; take the file from its source again"
    if (journal.exists() or journal.is_symlink()) and _names_another(journal):
        return f"{journal.name} beside it names another file; take the file from its source again"
    return None


def _names_another(journal: Path) -> bool:
    return journal.is_symlink() or _JOURNAL_END in read_bytes(journal, None)[-64:]


def harden(db: sqlite3.Connection) -> None:
    """Limits what the file can make SQLite do."""
    db.execute("PRAGMA trusted_schema = OFF")
    db.execute("PRAGMA cell_size_check = ON")
    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST_VALUE)
    db.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)


def tables_problem(db: sqlite3.Connection, statements: Collection[str]) -> str | None:
    """Returns what the database holds besides the tables of these statements, or lacks of them, or None."""
    expected = {_plain(statement) for statement in statements}
    found = set()
    for kind, name, sql in db.execute("SELECT type, name, sql FROM sqlite_schema"):
        if kind == "index" and sql is None:
            continue  # that of a primary key
        if not isinstance(sql, str) or _plain(sql) not in expected:
            return f"it holds the {kind} {shown(name)}, which no profile has in this form"
        found.add(_plain(sql))
    return None if found == expected else f"{len(expected - found)} of its tables are missing"


def _plain(sql: str) -> str:
    return re.sub(r"\s+", " ", sql).strip()
