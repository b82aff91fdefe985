"""The tables of a profile in each version of its format. Imports no torch."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

OLDEST, NEWEST = 2, 4  # the versions that are read
_COSTS = ("layer", "scheme", "bytes", "ms", "kernel", "simulated")
_FITTED, _ERRORS = 3, 4  # from these versions on: the table `parameters`, and the column `error` of the table `costs`

_TABLES = """
CREATE TABLE header (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE layers (position INTEGER PRIMARY KEY, address TEXT NOT NULL UNIQUE, facts TEXT NOT NULL);
CREATE TABLE graph (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE schemes (position INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE baseline (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE ranges (layer TEXT PRIMARY KEY REFERENCES layers (address), value TEXT NOT NULL);
CREATE TABLE costs (
    layer TEXT NOT NULL REFERENCES layers (address), scheme TEXT NOT NULL REFERENCES schemes (name),
    bytes INTEGER NOT NULL, ms REAL, kernel TEXT NOT NULL, simulated INTEGER NOT NULL,{error}
    PRIMARY KEY (layer, scheme));
CREATE TABLE measurements (
    layer TEXT NOT NULL REFERENCES layers (address), scheme TEXT NOT NULL REFERENCES schemes (name),
    metric TEXT NOT NULL, family TEXT NOT NULL, mean REAL NOT NULL, stderr REAL NOT NULL,
    count INTEGER NOT NULL, finite INTEGER NOT NULL, source TEXT NOT NULL, PRIMARY KEY (layer, scheme, metric));
CREATE TABLE responses (
    layer TEXT NOT NULL REFERENCES layers (address), scheme TEXT NOT NULL REFERENCES schemes (name),
    metric TEXT NOT NULL, probes INTEGER NOT NULL, sums BLOB NOT NULL, PRIMARY KEY (layer, scheme, metric));
"""
_PARAMETERS = """
CREATE TABLE parameters (
    owner TEXT NOT NULL REFERENCES layers (address), term TEXT NOT NULL, tensors BLOB NOT NULL,
    PRIMARY KEY (owner, term));
"""


def statements(version: int) -> list[str]:
    """Returns the statements that make the tables of a file of this version."""
    every = _TABLES.replace("{error}", " error REAL," * (version >= _ERRORS))
    every += _PARAMETERS * (version >= _FITTED)
    return [statement for statement in every.split(";") if statement.strip()]


def cost_columns(db: sqlite3.Connection) -> tuple[str, ...]:
    """Returns the columns of the table `costs`, in order."""
    return _COSTS + ("error",) * (_version(db) >= _ERRORS)


def real(value: float | None) -> float | None:
    """Returns the number as the database holds it."""
    return None if value is None else float(value)


def has_parameters(db: sqlite3.Connection) -> bool:
    """Whether the file has the table of fitted parameters."""
    return _version(db) >= _FITTED


def add_parameters(db: sqlite3.Connection) -> None:
    """Within a transaction, adds that table, and with it the version of the format that has it."""
    if not has_parameters(db):
        db.execute(_PARAMETERS)
        db.execute(f"PRAGMA user_version = {_FITTED}")


def drop_estimates(db: sqlite3.Connection, layers: Iterable[str]) -> None:
    """Within a transaction, removes the responses of layers and what was estimated from them."""
    for layer in layers:
        db.execute("DELETE FROM responses WHERE layer = ?", (layer,))
        db.execute("DELETE FROM measurements WHERE layer = ? AND source IN ('probes', 'corrected')", (layer,))


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])
