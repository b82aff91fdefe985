"""The SQLite file of a profile: its tables, its lock and its checks; every error becomes one line with advice.

Each write is one transaction with a rollback journal (`journal_mode=DELETE`, `synchronous=FULL`): when a write returns,
it is on disk, and a process killed during a write loses only that one. Unlike a write-ahead log, the journal does not
exist between writes, so the file is complete by itself and can be read in a read-only folder. A commit takes about a
millisecond, far less than a measurement.

An open writer always holds `BEGIN IMMEDIATE`. This lock admits readers and excludes a second writer, and the operating
system releases it with the process, so there are no stale locks.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

from bitplan.planner.profiles.intake import file_problem, harden, tables_problem
from bitplan.planner.profiles.schema import first_problem
from bitplan.planner.profiles.tables import NEWEST, OLDEST, statements
from bitplan.planner.texts import one_line, shell_command, system_reason

_APPLICATION_ID = 0x42504C4E  # "BPLN", in the file's first 100 bytes
_WAIT = 30.0  # seconds that a write waits for readers, and a reader for a write

_ADVICE = {
    sqlite3.SQLITE_BUSY: "another process is writing it; wait for it to finish, or {other}",
    sqlite3.SQLITE_FULL: "the disk is full; free some space and run the same command again; finished writes are safe",
    sqlite3.SQLITE_IOERR: "{error}; check the disk and its free space, then run the same command again; "
    "finished writes are safe",
    sqlite3.SQLITE_NOTADB: "this is not a profile; {other}",
    sqlite3.SQLITE_CORRUPT: "the file is damaged ({error}); restore a copy, or profile again with another --out",
    sqlite3.SQLITE_CANTOPEN: "{error}; check that the folder exists and is writable, or {other}",
    sqlite3.SQLITE_CONSTRAINT: "the values conflict ({error}); write each layer and each scheme once",
    sqlite3.SQLITE_READONLY: "it is read-only; change its permissions, or {other}",
}
_OTHER = {False: "name a file that `bitplan profile` wrote", True: "choose another --out"}  # by whether it is written


_DAMAGED = _ADVICE[sqlite3.SQLITE_CORRUPT]


class _OtherFileError(sqlite3.DatabaseError):
    """A database that is no profile."""

    sqlite_errorcode = sqlite3.SQLITE_NOTADB


class ProfileError(ValueError):
    """A profile cannot be created, read, continued or written; the message says why and what to do."""


@contextmanager
def advice(path: Path, writes: bool = False) -> Iterator[None]:
    """Turns every error of SQLite and of the file system into a ProfileError.

    writes: whether the profile is written and not only read; a verb that writes it has an option --out.
    """
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF  # the other bits are variants
        raise ProfileError(f"{path}: {_ADVICE.get(code, _DAMAGED).format(error=_line(error), other=_OTHER[writes])}"
                           ) from None  # fmt: skip
    except UnicodeDecodeError as error:  # raised by sqlite3 for damaged text
        raise ProfileError(f"{path}: {_DAMAGED.format(error=_line(error))}") from None
    except OSError as error:
        reason = system_reason(error)
        raise ProfileError(f"{path}: {reason}; {_OTHER[writes]}") from None


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Turns errors in decoding stored values into a ProfileError."""
    try:
        yield
    except ProfileError:
        raise
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ProfileError(f"{path}: {_DAMAGED.format(error=_line(error))}") from None


def _line(text: object) -> str:
    return one_line(text)


def dump(path: Path, what: str, value: Any) -> str:
    """Returns the value as JSON text. Raises ProfileError with `what` if JSON cannot express it."""
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ProfileError(
            f"{path}: {what} cannot be stored ({one_line(error)}); use finite numbers, texts and lists"
        ) from None


def agrees(old: Any, new: Any) -> bool:
    """Returns whether the values are equal in every key that the old one has: older profiles have fewer keys."""
    if isinstance(old, dict) and isinstance(new, dict):
        return all(key in new and agrees(value, new[key]) for key, value in old.items())
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(agrees, old, new))
    return bool(old == new)


def open_writer(path: Path, header: Mapping[str, Any] | None) -> sqlite3.Connection:
    """Returns a connection with the writer's lock; with a header, it creates the tables of a missing or empty file."""
    db = _connect(path, "rw" if header is None else "rwc", 0)
    try:
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        lock(db)
        db.execute(f"PRAGMA busy_timeout = {int(_WAIT * 1000)}")
        if header is not None and not path.stat().st_size:
            _create_tables(db, header)
        _check(db, path)
        _try_to_write(db)
    except BaseException:
        db.close()
        raise
    return db


def open_reader(path: Path) -> sqlite3.Connection:
    """Returns a read-only connection, after undoing the unfinished write of a killed process, if there is one."""
    try:
        return _checked_reader(path)
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) != sqlite3.SQLITE_READONLY_ROLLBACK:
            raise
    with closing(_connect(path, "rw", _WAIT)) as db:
        _tables(db)  # the first read rolls back
    return _checked_reader(path)


def lock(db: sqlite3.Connection) -> None:
    """Takes the writer's lock, or raises SQLITE_BUSY."""
    db.execute("BEGIN IMMEDIATE")


def _try_to_write(db: sqlite3.Connection) -> None:
    """Raises if the file or its folder (for the journal) is read-only, before long measurements begin."""
    db.execute(f"PRAGMA user_version = {_pragma(db, 'user_version')}")
    db.execute("ROLLBACK")
    lock(db)


def _checked_reader(path: Path) -> sqlite3.Connection:
    db = _connect(path, "ro", _WAIT)
    try:
        db.execute("BEGIN")  # prevents a writer from growing the file between the two reads of its size
        _check(db, path)
        db.execute("COMMIT")
    except BaseException:
        db.close()
        raise
    return db


def _connect(path: Path, mode: str, wait: float) -> sqlite3.Connection:
    if path.exists() and (problem := file_problem(path)):
        raise ProfileError(f"{path}: {problem}")
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None, timeout=wait)
    harden(db)
    return db


def _pragma(db: sqlite3.Connection, name: str) -> Any:
    return db.execute(f"PRAGMA {name}").fetchone()[0]


def _tables(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0])


def _create_tables(db: sqlite3.Connection, header: Mapping[str, Any]) -> None:
    """Writes tables and header in one transaction: a file has all of them or is empty."""
    for statement in statements(NEWEST):
        db.execute(statement)
    db.executemany("INSERT INTO header VALUES (?, ?)", ((key, json.dumps(value)) for key, value in header.items()))
    db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {NEWEST}")
    db.execute("COMMIT")
    lock(db)


def _check(db: sqlite3.Connection, path: Path) -> None:
    """Raises ProfileError unless the file is a complete profile of a supported version."""
    size, version = path.stat().st_size, _pragma(db, "user_version")
    if not size:
        raise ProfileError(f"{path}: it is empty because profiling stopped before it began; profile again")
    if _pragma(db, "application_id") != _APPLICATION_ID:
        raise _OtherFileError
    if not OLDEST <= version <= NEWEST:
        raise ProfileError(
            f"{path}: has format {version}, this BitPlan reads {OLDEST} to {NEWEST}; "
            f"{'upgrade BitPlan, or ' * (version > NEWEST)}profile again with another --out"
        )
    whole = _pragma(db, "page_count") * _pragma(db, "page_size")  # SQLite reads a truncated last page as zeros
    problem = f"{size} of {whole} bytes are there" if size < whole else tables_problem(db, statements(version))
    problem = problem or _pragma(db, "integrity_check(1)")
    if problem != "ok":
        raise ProfileError(f"{path}: {_DAMAGED.format(error=_line(problem))}")
    with decoding(path):
        problem = first_problem(db)
    if problem:
        raise ProfileError(f"{path}: {problem}; restore a copy, or profile again with another --out")


def in_order(columns: str, table: str) -> str:
    """Returns the query of these columns in graph order, then scheme order."""
    joined = f"{table} JOIN layers ON address = layer JOIN schemes ON name = scheme"
    return f"SELECT {columns} FROM {joined} ORDER BY layers.position, schemes.position"


def _refusal(error: sqlite3.IntegrityError) -> str:
    if error.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
        return "its layer or scheme is not in the profile; trace the model again"
    if error.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_NOTNULL:
        return "it holds a number that is NaN or missing; measure it again"
    return "it exists already; write each once"


def insert(path: Path, db: sqlite3.Connection, statement: str, rows: Iterable[Sequence[Any]], keys: int) -> None:
    """Executes the statement for each row; the first `keys` columns name the row in errors."""
    for row in rows:
        try:
            db.execute(statement, row)
        except sqlite3.IntegrityError as error:
            name, reason = " / ".join(row[:keys]), _refusal(error)
            raise ProfileError(f"{path}: {name} is refused because {reason}") from None


def check_present(path: str | PathLike[str]) -> None:
    """Raises ProfileError where there is no file at `path`."""
    if not Path(path).exists():
        command = shell_command("bitplan", "profile", "PIPELINE", "--out", Path(path))
        raise ProfileError(f"{path}: there is no such file; create it with `{command}`")
