"""The profile: all measurements of one model, in one SQLite file. Imports no torch. See docs/profile-file.md.

Each `write_*` is one transaction: a killed process loses at most the current one, and the same command continues.
`bitplan.planner.profiles.file` explains how.
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

from bitplan.planner.profiles.continuing import check_same
from bitplan.planner.profiles.file import (
    ProfileError,
    advice,
    agrees,
    check_present,
    decoding,
    dump,
    in_order,
    insert,
    lock,
    open_reader,
    open_writer,
)
from bitplan.planner.profiles.tables import cost_columns, drop_estimates, real
from bitplan.sensitivity.table import Measurement

Pair = tuple[str, str]  # layer address, scheme text
__all__ = ["Cost", "Profile", "ProfileError", "Response", "content_digest", "open_profile"]


@dataclass(frozen=True)
class Cost:
    """The cost of one layer under one scheme.

    Attributes:
        layer, scheme: the address and the text form.
        bytes: the exact size as stored.
        ms: of all calls in one run; None if not measured.
        kernel: the kernel that ran.
        simulated: whether no kernel on this machine runs the scheme, so that it saves no time.
        error: the standard error of `ms`; None if it is not known, as in profiles of older formats.
    """

    layer: str
    scheme: str
    bytes: int
    ms: float | None
    kernel: str
    simulated: bool
    error: float | None = None


@dataclass(frozen=True, eq=False)
class Response:
    """The responses of one metric's probes to one (layer, scheme): see `bitplan.sensitivity.probes.estimate`.

    Attributes:
        layer, scheme, metric: what was changed and measured.
        probes: the number K of probes.
        sums: K x samples numbers, little-endian float32.
    """

    layer: str
    scheme: str
    metric: str
    probes: int
    sums: bytes


class Profile:
    """An open profile, also a context manager; see `Profile.create` and `open_profile`. Methods raise ProfileError."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = connection

    @classmethod
    def create(cls, path: str | PathLike[str], header: Mapping[str, Any]) -> Profile:
        """Creates a profile, or opens an existing one to continue it, whose header must mean the same.

        header: JSON values that state what is measured and how (model, fingerprints, settings, machine, versions), and
        nothing that changes from run to run. Raises ProfileError if the headers differ or the file cannot be used.
        """
        path = Path(path)
        values = json.loads(dump(path, "header", dict(header)))
        if not path.absolute().parent.is_dir():
            raise ProfileError(f"{path}: the folder {path.parent} does not exist; create it, or change --out")
        with advice(path, writes=True):
            profile = cls(path, open_writer(path, values))
        try:
            check_same(path, profile.header(), values)
        except BaseException:
            profile.close()
            raise
        return profile

    def header(self) -> dict[str, Any]:
        """Returns the header given to `create`."""
        return self._values("SELECT key, value FROM header ORDER BY rowid")

    def write_graph(self, graph: Mapping[str, Any], schemes: Sequence[str]) -> None:
        """Writes the layer graph (`graph.to_json`) and the schemes to measure; everything is read in their order.

        Does nothing if the profile has the same ones; raises ProfileError if it has others.
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
        """Returns the layer graph for `graph.from_json`; an empty list of layers before `write_graph`."""
        rows = self._rows("SELECT facts FROM layers ORDER BY position")
        with decoding(self.path):
            layers = [json.loads(facts) for (facts,) in rows]
        return {"layers": layers} | self._values("SELECT key, value FROM graph ORDER BY rowid")

    def layers(self) -> tuple[str, ...]:
        """Returns the layer addresses in graph order."""
        return tuple(address for (address,) in self._rows("SELECT address FROM layers ORDER BY position"))

    def schemes(self) -> tuple[str, ...]:
        """Returns the scheme texts in the order of `write_graph`."""
        return tuple(name for (name,) in self._rows("SELECT name FROM schemes ORDER BY position"))

    def write_ranges(self, ranges: Mapping[str, Any]) -> None:
        """Writes calibrated ranges, any JSON value by layer address; replaces those of the same layers."""
        rows = [(layer, dump(self.path, f"the range of {layer}", value)) for layer, value in ranges.items()]
        self._insert("REPLACE INTO ranges VALUES (?, ?)", rows, 1)

    def ranges(self) -> dict[str, Any]:
        """Returns the calibrated ranges by layer address, in graph order; empty before calibration."""
        return self._values("SELECT layer, value FROM ranges JOIN layers ON address = layer ORDER BY position")

    def write_baseline(self, numbers: Mapping[str, Any]) -> None:
        """Writes numbers of the model in full precision, any JSON value by name; replaces those of the same names."""
        rows = [(name, dump(self.path, name, value)) for name, value in numbers.items()]
        self._insert("REPLACE INTO baseline VALUES (?, ?)", rows, 1)

    def baseline(self) -> dict[str, Any]:
        """Returns the numbers of the model in full precision, in alphabetical order of their names."""
        return self._values("SELECT key, value FROM baseline ORDER BY key")

    def write_costs(self, costs: Iterable[Cost]) -> None:
        """Writes costs as measured in one transaction; replaces those of the same (layer, scheme)."""
        columns = cost_columns(self._db)
        rows = [
            (c.layer, c.scheme, int(c.bytes), real(c.ms), c.kernel, int(c.simulated), real(c.error))[: len(columns)]
            for c in costs
        ]
        self._insert(f"REPLACE INTO costs VALUES ({', '.join('?' * len(columns))})", rows, 2)

    def costs(self) -> tuple[Cost, ...]:
        """Returns the costs as measured, in graph order, then scheme order; see `timings.steadied` for their noise."""
        rows = self._rows(in_order(", ".join(cost_columns(self._db)), "costs"))
        return tuple(Cost(*row[:5], bool(row[5]), *row[6:]) for row in rows)

    def write_measurements(
        self, measurements: Iterable[Measurement], families: Mapping[str, str], responses: Iterable[Response] = (),
        baseline: Mapping[str, Any] | None = None, without: Iterable[str] = (),
    ) -> None:  # fmt: skip
        """Writes measurements in one transaction, which must contain all metrics of each (layer, scheme).

        An estimate is replaced by a new one or by an exhaustive measurement.

        Args:
            measurements: the losses.
            families: metric -> family.
            responses: the responses that estimates are computed from.
            baseline: numbers that belong to them, as in `write_baseline`.
            without: layers whose responses and estimates are removed first.

        Raises:
            ProfileError: an exhaustive measurement exists already, or a layer or scheme is unknown; nothing is written.
        """
        rows = [(m.layer, m.scheme, m.metric, families[m.metric], float(m.mean), float(m.stderr), int(m.count),
                 int(m.finite), m.source) for m in measurements]  # fmt: skip
        sums = [(r.layer, r.scheme, r.metric, r.probes, r.sums) for r in responses]
        numbers = [(name, dump(self.path, name, value)) for name, value in (baseline or {}).items()]
        with self._transaction() as db:
            drop_estimates(db, without)
            db.executemany("DELETE FROM measurements WHERE layer=? AND scheme=? AND metric=? AND source<>'exhaustive'",
                           (row[:3] for row in rows))  # fmt: skip
            insert(self.path, db, "INSERT INTO measurements VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows, 3)
            insert(self.path, db, "REPLACE INTO responses VALUES (?, ?, ?, ?, ?)", sums, 3)
            insert(self.path, db, "REPLACE INTO baseline VALUES (?, ?)", numbers, 1)

    def measurements(self) -> tuple[Measurement, ...]:
        """Returns the measurements in graph order, then scheme order, then by metric; for `LossTable.of`."""
        rows = self._rows(
            in_order("layer, scheme, metric, mean, stderr, count, finite, source", "measurements") + ", metric"
        )
        with decoding(self.path):
            return tuple(
                Measurement(layer, scheme, metric, mean, stderr, count, bool(finite), source)
                for layer, scheme, metric, mean, stderr, count, finite, source in rows
            )

    def responses(self, pairs: Mapping[str, str] | None = None) -> Iterator[Response]:
        """Yields the responses in graph order, then scheme order. pairs: layer -> scheme, to read only these."""
        query = in_order("layer, scheme, metric, probes, sums", "responses") + ", metric"
        chosen = "WHERE layer = ? AND scheme = ? ORDER" if pairs is not None else "ORDER"
        for pair in [()] if pairs is None else pairs.items():
            yield from (Response(*row) for row in self._rows(query.replace("ORDER", chosen), pair))

    def families(self) -> dict[str, str]:
        """Returns metric -> family of all metrics measured so far, in alphabetical order."""
        return dict(self._rows("SELECT DISTINCT metric, family FROM measurements ORDER BY metric"))

    def measured(self, source: str = "%") -> frozenset[tuple[str, str]]:
        """Returns the measured (layer, scheme). source: only those from this source."""
        return frozenset(self._rows("SELECT DISTINCT layer, scheme FROM measurements WHERE source LIKE ?", (source,)))

    def close(self) -> None:
        """Closes the file; a second call does nothing."""
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
        """A transaction, on disk when it ends. A writer always holds one open: this commits it and begins the next."""
        db = self._db
        if not db.in_transaction:
            raise ProfileError(f"{self.path}: it is open for reading only; open it with mode 'a'")
        with advice(self.path, writes=True):
            try:
                yield db
                db.execute("COMMIT")
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                lock(db)

    def _insert(self, statement: str, rows: Iterable[Sequence[Any]], keys: int) -> None:
        with self._transaction() as db:
            insert(self.path, db, statement, rows, keys)

    def _rows(self, query: str, values: Sequence[str] = ()) -> list[Any]:
        with advice(self.path):
            return self._db.execute(query, values).fetchall()  # at once: an open cursor would block the writer

    def _values(self, query: str) -> dict[str, Any]:
        rows = self._rows(query)
        with decoding(self.path):
            return {key: json.loads(value) for key, value in rows}


def open_profile(path: str | PathLike[str], mode: str = "r") -> Profile:
    """Opens the profile at `path` to read (`r`: creates no files and works in read-only folders) or to append (`a`).

    Raises ProfileError if it is missing, not a profile, damaged, from a newer BitPlan or, for `a`, being written.
    """
    path = Path(path)
    if mode not in ("r", "a"):
        raise ProfileError(f"{path}: mode is 'r' to read or 'a' to append, not {mode!r}")
    with advice(path, writes=mode == "a"):
        check_present(path)
        return Profile(path, open_reader(path) if mode == "r" else open_writer(path, None))


def content_digest(profile: Profile) -> str:
    """Returns the sha256 (hex) of all measurements, exact and in order, without timings, to compare two runs."""
    families = profile.families()
    lines = (
        [m.layer, m.scheme, m.metric, families[m.metric], m.mean.hex(), m.stderr.hex(), m.count, m.finite, m.source]
        for m in profile.measurements()
    )
    return hashlib.sha256("\n".join(map(json.dumps, lines)).encode()).hexdigest()
