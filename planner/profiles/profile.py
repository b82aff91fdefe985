"""The profile: everything measured about one model, in one SQLite file. Imports no torch. See docs/profile-file.md.

Each `write_*` is one transaction: killing the process at any moment loses at most the one under way, and the same
command continues. `bitplan.planner.profiles.file` says how the file keeps that promise.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from bitplan.planner.profiles.file import (
    ProfileError,
    advice,
    agrees,
    check_same,
    decoding,
    dump,
    lock,
    open_reader,
    open_writer,
)
from bitplan.sensitivity.table import Measurement

Pair = tuple[str, str]  # layer address, scheme text
__all__ = ["Cost", "Profile", "ProfileError", "Response", "content_digest", "open_profile"]


@dataclass(frozen=True)
class Cost:
    """What one layer costs under one scheme.

    bytes: exactly as stored. ms: of all its calls in one run, None when not timed. kernel: what ran it.
    simulated: no kernel here runs the scheme, so that it saves nothing yet.
    """

    layer: str
    scheme: str
    bytes: int
    ms: float | None
    kernel: str
    simulated: bool


@dataclass(frozen=True, eq=False)
class Response:
    """What the probes of one metric saw of one (layer, scheme): see `bitplan.sensitivity.probes.estimate`.

    sums: probes x samples numbers, little-endian float32.
    """

    layer: str
    scheme: str
    metric: str
    probes: int
    sums: bytes


class Profile:
    """An open profile and a context manager, from `Profile.create` or `open_profile`. Methods raise ProfileError."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = connection

    @classmethod
    def create(cls, path: str | PathLike[str], header: Mapping[str, Any]) -> Profile:
        """A new profile, or, to be continued, the one that is there if it has the same header.

        header: JSON values that say what is measured and how (model, fingerprints, settings, machine, versions);
        nothing that differs from run to run. Raises ProfileError saying what differs, or why the file cannot be used.
        """
        path = Path(path)
        wanted = json.loads(dump(path, "header", dict(header)))
        if not path.absolute().parent.is_dir():
            raise ProfileError(f"{path}: the folder {path.parent} does not exist; create it, or change --out")
        with advice(path):
            profile = cls(path, open_writer(path, wanted))
        try:
            check_same(path, profile.header(), wanted)
        except BaseException:
            profile.close()
            raise
        return profile

    def header(self) -> dict[str, Any]:
        """What `create` was given."""
        return self._values("SELECT key, value FROM header ORDER BY rowid")

    def write_graph(self, graph: Mapping[str, Any], schemes: Sequence[str]) -> None:
        """Keep the layer graph (`graph.to_json`) and the schemes to measure; their order is that of all readings.

        Does nothing when they are there already; raises ProfileError when others are.
        """
        parts = json.loads(dump(self.path, "graph", dict(graph)))
        if self.layers():
            if not agrees(self.graph(), parts) or self.schemes() != tuple(schemes):
                raise ProfileError(f"{self.path}: it is for other layers or schemes; choose another file with --out")
            return
        with self._transaction() as db:
            layers = ((i, facts["address"], json.dumps(facts)) for i, facts in enumerate(parts.pop("layers")))
            db.executemany("INSERT INTO layers VALUES (?, ?, ?)", layers)
            db.executemany("INSERT INTO graph VALUES (?, ?)", ((key, json.dumps(v)) for key, v in parts.items()))
            db.executemany("INSERT INTO schemes VALUES (?, ?)", enumerate(schemes))

    def graph(self) -> dict[str, Any]:
        """What `graph.from_json` takes; only an empty list of layers before `write_graph`."""
        rows = self._rows("SELECT facts FROM layers ORDER BY position")
        with decoding(self.path):
            layers = [json.loads(facts) for (facts,) in rows]
        return {"layers": layers} | self._values("SELECT key, value FROM graph ORDER BY rowid")

    def layers(self) -> tuple[str, ...]:
        """Layer addresses in graph order."""
        return tuple(address for (address,) in self._rows("SELECT address FROM layers ORDER BY position"))

    def schemes(self) -> tuple[str, ...]:
        """Scheme texts in the order given."""
        return tuple(name for (name,) in self._rows("SELECT name FROM schemes ORDER BY position"))

    def write_ranges(self, ranges: Mapping[str, Any]) -> None:
        """Keep the calibrated ranges of layers, any JSON value by address; replaces those of the same layers."""
        rows = [(layer, dump(self.path, f"the range of {layer}", value)) for layer, value in ranges.items()]
        self._insert("REPLACE INTO ranges VALUES (?, ?)", rows, 1)

    def ranges(self) -> dict[str, Any]:
        """Calibrated ranges by layer address, in graph order; empty before calibration."""
        return self._values("SELECT layer, value FROM ranges JOIN layers ON address = layer ORDER BY position")

    def write_baseline(self, numbers: Mapping[str, Any]) -> None:
        """Keep numbers of the model in full precision, any JSON value by name; replaces those of the same names."""
        rows = [(name, dump(self.path, name, value)) for name, value in numbers.items()]
        self._insert("REPLACE INTO baseline VALUES (?, ?)", rows, 1)

    def baseline(self) -> dict[str, Any]:
        """Numbers of the model in full precision, in alphabetical order of their names."""
        return self._values("SELECT key, value FROM baseline ORDER BY key")

    def write_costs(self, costs: Iterable[Cost]) -> None:
        """Keep costs, all in one transaction; replaces those of the same (layer, scheme)."""
        rows = [
            (c.layer, c.scheme, int(c.bytes), None if c.ms is None else float(c.ms), c.kernel, int(c.simulated))
            for c in costs
        ]
        self._insert("REPLACE INTO costs VALUES (?, ?, ?, ?, ?, ?)", rows, 2)

    def costs(self) -> tuple[Cost, ...]:
        """Costs in graph, then scheme order."""
        rows = self._rows(_in_order("layer, scheme, bytes, ms, kernel, simulated", "costs"))
        return tuple(Cost(layer, scheme, b, ms, kernel, bool(mock)) for layer, scheme, b, ms, kernel, mock in rows)

    def write_measurements(
        self, measurements: Iterable[Measurement], families: Mapping[str, str], responses: Iterable[Response] = (),
        baseline: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Keep measurements, all in one transaction: hand over all metrics of a (layer, scheme) at once.

        families: the family of each metric; responses, baseline: what belongs to them (see `write_baseline`). An
        estimate gives way to another and to an exhaustive measurement. Raises ProfileError, and keeps none, when an
        exhaustive one is there already or a layer or scheme is unknown.
        """
        rows = [
            (m.layer, m.scheme, m.metric, families[m.metric])
            + (float(m.mean), float(m.stderr), int(m.count), int(m.finite), m.source)
            for m in measurements
        ]
        sums = [(r.layer, r.scheme, r.metric, r.probes, r.sums) for r in responses]
        said = [(name, dump(self.path, name, value)) for name, value in (baseline or {}).items()]
        with self._transaction() as db:
            db.executemany("DELETE FROM measurements WHERE layer=? AND scheme=? AND metric=? AND source<>'exhaustive'",
                           (row[:3] for row in rows))  # fmt: skip
            _insert(self.path, db, "INSERT INTO measurements VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows, 3)
            _insert(self.path, db, "REPLACE INTO responses VALUES (?, ?, ?, ?, ?)", sums, 3)
            _insert(self.path, db, "REPLACE INTO baseline VALUES (?, ?)", said, 1)

    def measurements(self) -> tuple[Measurement, ...]:
        """Measurements in graph, then scheme order, then by the metric's name; `LossTable.of` takes them."""
        rows = self._rows(
            _in_order("layer, scheme, metric, mean, stderr, count, finite, source", "measurements") + ", metric"
        )
        with decoding(self.path):
            return tuple(
                Measurement(layer, scheme, metric, mean, stderr, count, bool(finite), source)
                for layer, scheme, metric, mean, stderr, count, finite, source in rows
            )

    def responses(self, pairs: Mapping[str, str] | None = None) -> Iterator[Response]:
        """The responses kept, in graph, then scheme order; with `pairs`, those of each layer's scheme alone."""
        query = _in_order("layer, scheme, metric, probes, sums", "responses") + ", metric"
        chosen = "WHERE layer = ? AND scheme = ? ORDER" if pairs is not None else "ORDER"
        for pair in [()] if pairs is None else pairs.items():
            yield from (Response(*row) for row in self._rows(query.replace("ORDER", chosen), pair))

    def families(self) -> dict[str, str]:
        """The family of each metric measured so far, in alphabetical order of the metrics."""
        return dict(self._rows("SELECT DISTINCT metric, family FROM measurements ORDER BY metric"))

    def measured(self, source: str = "%") -> frozenset[tuple[str, str]]:
        """The (layer, scheme) that have been measured: what to skip when continuing. source: only those from there."""
        return frozenset(self._rows("SELECT DISTINCT layer, scheme FROM measurements WHERE source LIKE ?", (source,)))

    def close(self) -> None:
        """Let the file go; harmless when done before."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> Profile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _db(self) -> sqlite3.Connection:
        if self._connection is None:
            raise ProfileError(f"{self.path}: this profile was closed; open it again")
        return self._connection

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, on the disk at the end. A writer rests inside one: this commits it and begins the next."""
        db = self._db
        if not db.in_transaction:
            raise ProfileError(f"{self.path}: it is open for reading only; open it with mode 'a'")
        with advice(self.path):
            try:
                yield db
                db.execute("COMMIT")
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                lock(db)

    def _insert(self, statement: str, rows: Iterable[Sequence[Any]], keys: int) -> None:
        with self._transaction() as db:
            _insert(self.path, db, statement, rows, keys)

    def _rows(self, query: str, values: Sequence[str] = ()) -> list[Any]:
        with advice(self.path):
            return self._db.execute(query, values).fetchall()  # at once: an unfinished reading would hold up the writer

    def _values(self, query: str) -> dict[str, Any]:
        rows = self._rows(query)
        with decoding(self.path):
            return {key: json.loads(value) for key, value in rows}


def _insert(path: Path, db: sqlite3.Connection, statement: str, rows: Iterable[Sequence[Any]], keys: int) -> None:
    """Run the statement for each row; the first `keys` columns name the row in errors."""
    for row in rows:
        try:
            db.execute(statement, row)
        except sqlite3.IntegrityError as error:
            name, reason = " / ".join(row[:keys]), _refusal(error)
            raise ProfileError(f"{path}: {name} is refused, for {reason}") from None


def open_profile(path: str | PathLike[str], mode: str = "r") -> Profile:
    """The profile at `path`, to read (`r`: makes no files, folders may be read-only) or to write more into (`a`).

    Raises ProfileError when it is missing, no profile, damaged, from a newer BitPlan or, for `a`, being written.
    """
    path = Path(path)
    if mode not in ("r", "a"):
        raise ProfileError(f"{path}: mode is 'r' to read or 'a' to write more, not {mode!r}")
    with advice(path):
        if not path.is_file():
            raise ProfileError(f"{path}: there is no such file; make it with `bitplan profile PIPELINE --out {path}`")
        return Profile(path, open_reader(path) if mode == "r" else open_writer(path, None))


def content_digest(profile: Profile) -> str:
    """sha256 (hex) over all measurements, bit for bit and in order, and nothing timed: two runs can be compared."""
    families = profile.families()
    lines = (
        [m.layer, m.scheme, m.metric, families[m.metric], m.mean.hex(), m.stderr.hex(), m.count, m.finite, m.source]
        for m in profile.measurements()
    )
    return hashlib.sha256("\n".join(map(json.dumps, lines)).encode()).hexdigest()


def _in_order(columns: str, table: str) -> str:
    joined = f"{table} JOIN layers ON address = layer JOIN schemes ON name = scheme"
    return f"SELECT {columns} FROM {joined} ORDER BY layers.position, schemes.position"


def _refusal(error: sqlite3.IntegrityError) -> str:
    if error.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
        return "its layer or scheme is not in the profile; trace the model again"
    if error.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_NOTNULL:
        return "it holds a number that is NaN or missing; measure it again"
    return "it is there already; write each once"
