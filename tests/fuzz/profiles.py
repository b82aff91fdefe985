"""Profiles with edited values, rows, tables and bytes; what `solve` accepts is solved again by brute force."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fuzz.brute import least, nonsense, same, stored, sums
from tests.fuzz.case import Answer, Case, command
from tests.fuzz.values import NAMES, NUMBERS, RAW, TEXTS, Random, mutated, nasty, spoilt, text_of
from tests.fuzz.world import copied, plan_data

METRIC = "nsr"
SQLITE = 0x7FFFFFFFFFFFFFFF  # the largest integer that SQLite holds


def run(case: Case) -> None:
    """Spoils a copy of the profile, and gives it to commands."""
    path = copied(case.world.profile, case.box.inputs)
    edits = case.random.choice((0, 1, 1, 1, 1, 1, 1, 2, 2, 3))
    for _ in range(edits):
        spoil(case, path)
    solved = solved_and_checked(case, path, METRIC)
    if not edits and not solved.accepted:
        case.find("a good profile is refused", solved.err)
    plan = case.box.out / "p.plan.yaml" if solved.accepted else case.world.plan
    for _ in range(case.random.choice((1, 1, 1, 2))):
        case.random.choice(_COMMANDS)(case, path, plan)


def solved_and_checked(case: Case, path: Path, metric: str) -> Answer:
    """Solves a profile; compares what is accepted with brute force."""
    limit = case.random.choice(("20%", "30%", "60%", "100%", "1200B"))
    options = case.random.choice(((), (), (), ("--confidence", "0.9"), ("--worth",), ("--json",), ("--gap", "0.01")))
    plan = case.box.out / "p.plan.yaml"
    solved = command(case, "solve", path, "--objective", f"{metric}=1", "--memory", limit, "--out", plan, *options)
    if solved.accepted:
        _accepted(case, path, plan, solved, exact=options[:1] not in (("--confidence",), ("--gap",)))
    elif solved.code == 3 and options != ("--confidence", "0.9"):
        _infeasible(case, path, solved)
    return solved


def _accepted(case: Case, path: Path, plan: Path, solved: Answer, exact: bool) -> None:
    """Compares the plan of an accepted profile with brute force."""
    found = nonsense(path)
    for text in dict.fromkeys(found):
        case.find(f"accepted by solve: {text.split(' ')[0]} {text.rsplit(' of ', 1)[-1]}", (text, case.edits))
    if found:
        return
    made = plan_data(plan)
    try:
        data = stored(path, METRIC)
    except (ValueError, TypeError) as error:
        case.find("accepted by solve: shared inputs that are none", (error, case.edits))
        return
    size, loss = sums(data, made["schemes"])
    limit = made["budgets"]["bytes"]
    if size > limit:
        case.find("a plan above its budget", (size, limit, case.edits))
    best = least(data, limit)
    if exact and best is not None and not same(loss, best) and loss > best:
        case.find("a plan that is not the best", (loss, best, case.edits))
    checked = command(case, "verify", plan, path)
    if not checked.accepted:
        case.find("verify refuses what solve wrote", (checked.err, case.edits))


def _infeasible(case: Case, path: Path, solved: Answer) -> None:
    if nonsense(path):
        case.find("nonsense is called infeasible", (solved.err, case.edits))


def _inspect(case: Case, path: Path, plan: Path) -> None:
    command(case, "inspect", path, *case.random.choice(((), ("--json",))))


def _sweep(case: Case, path: Path, plan: Path) -> None:
    more = case.random.choice(((), (), ("--images", 1), ("--by", "latency"), ("--by", METRIC), ("--bits", 5, "--by",
                               "latency")))  # fmt: skip
    swept = command(case, "sweep", path, "--points", 3, "--out", case.box.out / "run", *more)
    if swept.accepted:
        command(case, "report", case.box.out / "run", "--out", case.box.out / "r.html")


def _rerank(case: Case, path: Path, plan: Path) -> None:
    command(case, "solve", path, "--memory", "40%", "--candidates", 2, "--rerank", "joint", "--out",
            case.box.out / "q.plan.yaml")  # fmt: skip


def _with_plan(verb: str, *more: str) -> Callable[[Case, Path, Path], None]:
    def give(case: Case, path: Path, plan: Path) -> None:
        command(case, verb, copied(plan, case.box.root / "tmp"), path, *more)

    return give


def _merge(case: Case, path: Path, plan: Path) -> None:
    other = case.box.inputs / "other.profile"
    other.write_bytes(case.world.profile.read_bytes())
    files = case.random.sample([path, other], 2)
    merged = command(case, "merge", *files, "--costs", other, "--out", case.box.out / "m.profile")
    if merged.accepted:
        for text in dict.fromkeys(nonsense(case.box.out / "m.profile")):
            case.find(f"accepted by merge: {text.split(' ')[0]} {text.rsplit(' of ', 1)[-1]}", (text, case.edits))


def _export(case: Case, path: Path, plan: Path) -> None:
    to = case.random.choice(("sdnq", "torchao", "gguf-recipe", "modelopt"))
    own = copied(plan, case.box.root / "tmp")
    command(case, "export", own, "--to", to, "--model", path, "--approximate", "--out", case.box.out / "e.json")


def _uniform(case: Case, path: Path, plan: Path) -> None:
    command(case, "solve", path, "--uniform", "w4ma8", "--kernels", "fake", "--out", case.box.out / "u.plan.yaml")


_COMMANDS = (
    _inspect, _sweep, _rerank, _merge, _export, _uniform, _with_plan("verify"), _with_plan("predict"),
    _with_plan("why", "unet.conv_in"), _with_plan("verify", "--prove"),
)  # fmt: skip


def spoil(case: Case, path: Path) -> None:
    """One random edit of the file."""
    random = case.random
    if random.random() < 0.12:
        path.write_bytes(spoilt(path.read_bytes(), random))
        case.edits.append("bytes")
        return
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.execute("PRAGMA synchronous = OFF")
        db.execute("PRAGMA journal_mode = MEMORY")
        for _ in range(6):
            edit = random.choice(_EDITS)
            try:
                case.edits.append(f"{edit.__name__.strip('_')}: {edit(db, random)}"[:300])
                return
            except (sqlite3.Error, OverflowError, ValueError, TypeError, RecursionError) as refused:
                case.edits.append(f"{edit.__name__} refused: {refused}"[:100])
    except (sqlite3.Error, UnicodeDecodeError):  # an earlier edit spoilt the file itself
        path.write_bytes(spoilt(path.read_bytes(), random))
    finally:
        db.close()


TABLES = ("header", "layers", "graph", "schemes", "baseline", "ranges", "costs", "costs", "costs", "measurements",
          "measurements", "measurements", "responses")  # fmt: skip
_JSON = {"header": "value", "layers": "facts", "graph": "value", "baseline": "value", "ranges": "value"}


def _columns(db: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in db.execute(f"PRAGMA table_info({table})")]


def _rowid(db: sqlite3.Connection, table: str, random: Random) -> int:
    return int(random.choice(db.execute(f"SELECT rowid FROM {table} ORDER BY rowid").fetchall() or [(1,)])[0])


def _cell(db: sqlite3.Connection, random: Random) -> str:
    table = random.choice(TABLES)
    if random.random() < 0.3:
        _untyped(db, table)
    column, row, value = random.choice(_columns(db, table) or ["value"]), _rowid(db, table, random), _sql(nasty(random))
    db.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (value, row))
    return f"{table}.{column} {row} = {str(value)[:60]!r}"


def _number(db: sqlite3.Connection, random: Random) -> str:
    table, column = random.choice((("costs", "bytes"), ("costs", "ms"), ("measurements", "mean"),
                                   ("measurements", "stderr"), ("measurements", "count"), ("responses", "probes"),
                                   ("costs", "simulated"), ("measurements", "finite")))  # fmt: skip
    row, value = _rowid(db, table, random), _sql(random.choice(NUMBERS))
    where = "" if random.random() < 0.1 else f" WHERE rowid = {row}"
    db.execute(f"UPDATE {table} SET {column} = ?{where}", (value,))
    return f"{table}.{column}{where} = {str(value)[:60]!r}"


def _json(db: sqlite3.Connection, random: Random) -> str:
    table = random.choice(list(_JSON))
    row, column = _rowid(db, table, random), _JSON[table]
    ((text,),) = db.execute(f"SELECT {column} FROM {table} WHERE rowid = ?", (row,)).fetchall()
    value = text_of(mutated(json.loads(text), random, random.choice((1, 1, 2))))
    db.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (value, row))
    return f"{table}.{column} {row} = {value[:200]!r}"


def _renamed(db: sqlite3.Connection, random: Random) -> str:
    table, column = random.choice((("measurements", "metric"), ("measurements", "family"), ("schemes", "name"),
                                   ("layers", "address"), ("costs", "kernel"), ("measurements", "source")))  # fmt: skip
    old = random.choice(db.execute(f"SELECT {column} FROM {table} GROUP BY 1 ORDER BY 1").fetchall() or [("",)])[0]
    new = random.choice((*NAMES, *TEXTS))
    everywhere = {"name": "scheme", "address": "layer", "metric": "metric"}.get(column, column)
    db.execute("PRAGMA foreign_keys = OFF")
    for each in ("layers", "schemes", "ranges", "costs", "measurements", "responses"):
        for name in {column, everywhere} & {*_columns(db, each)}:
            db.execute(f"UPDATE {each} SET {name} = ? WHERE {name} = ?", (new, old))
    return f"{column} {old} is {new[:60]!r}"


def _rows(db: sqlite3.Connection, random: Random) -> str:
    table = random.choice(TABLES)
    row, other = _rowid(db, table, random), _rowid(db, table, random)
    kind = random.randrange(4)
    if kind == 0:
        db.execute(f"DELETE FROM {table} WHERE rowid = ?", (row,))
    elif kind == 1:
        db.execute(f"DELETE FROM {table}")
    elif kind == 2:
        _untyped(db, table)
        db.execute(f"INSERT INTO {table} SELECT * FROM {table} WHERE rowid = ?", (row,))
    else:
        column = random.choice(_columns(db, table) or ["value"])
        _untyped(db, table)
        values = [db.execute(f"SELECT {column} FROM {table} WHERE rowid = ?", (at,)).fetchone() for at in (row, other)]
        for at, value in zip((other, row), values, strict=True):
            db.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (*(value or (None,)), at))
    return f"{('delete', 'empty', 'twice', 'swap')[kind]} {table} {row} {other}"


def _schema(db: sqlite3.Connection, random: Random) -> str:
    table = random.choice(TABLES)
    column = random.choice(_columns(db, table) or ["value"])
    statement = random.choice((
        f"DROP TABLE {table}", f"ALTER TABLE {table} DROP COLUMN {column}", f"ALTER TABLE {table} ADD COLUMN more TEXT",
        f"ALTER TABLE {table} RENAME COLUMN {column} TO other", "CREATE TABLE more (a)",
        f"CREATE VIEW v AS SELECT * FROM {table}", f"CREATE TRIGGER t AFTER INSERT ON {table} BEGIN DELETE FROM header;"
        " END", f"PRAGMA user_version = {random.choice((0, 1, 2, 3, 4, -1, 2**31 - 1))}",
        f"PRAGMA application_id = {random.choice((0, 1, -1))}", f"ALTER TABLE {table} RENAME TO gone",
        f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) "
        f"INSERT INTO {table} SELECT {', '.join('i' for _ in _columns(db, table))} FROM n",
    ))  # fmt: skip
    if random.random() < 0.1:  # a view that looks like the table, and costs time when it is read
        db.execute(f"ALTER TABLE {table} RENAME TO gone")
        statement = f"CREATE VIEW {table} AS SELECT * FROM gone"
    db.execute("PRAGMA foreign_keys = OFF")
    db.execute(statement)
    return statement[:100]


def _untyped(db: sqlite3.Connection, table: str) -> None:
    """Makes the table again without types and constraints, so that it holds any value as it is."""
    db.execute("PRAGMA foreign_keys = OFF")
    db.execute(f"CREATE TABLE made AS SELECT * FROM {table}")
    names = ", ".join(_columns(db, table))
    db.execute(f"DROP TABLE {table}")
    db.execute(f"CREATE TABLE {table} ({names})")
    db.execute(f"INSERT INTO {table} SELECT * FROM made")
    db.execute("DROP TABLE made")


def _sql(value: Any) -> Any:
    """The value as SQLite holds it: integers beyond its range and nested data as text."""
    if isinstance(value, (list, dict)) or (isinstance(value, int) and not -SQLITE <= value <= SQLITE):
        return text_of(value)
    if isinstance(value, str):
        return RAW.get(value, value.encode("utf-8", "surrogatepass") if "\ud800" in value else value)
    return value


_EDITS = (_cell, _cell, _number, _number, _number, _json, _json, _renamed, _rows, _schema)
