"""Edits of a profile's contents: each is refused in one line that names the place, or changes nothing that matters."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from pathlib import Path

import pytest

from bitplan.planner.choice.evidence import read_evidence
from bitplan.planner.errors import UserError
from bitplan.planner.graph.layers import GraphError
from bitplan.planner.profiles import schema
from bitplan.planner.profiles.profile import Cost, Profile, ProfileError, open_profile
from bitplan.sensitivity.table import Measurement, MeasurementError
from tests.planner.support.profile_writer import HEADER, graph, layer

SCHEMES = ("keep", "w8a8", "w4a8")
LAYERS = ("unet.a", "unet.b")


def finished(path: Path) -> Path:
    with Profile.create(path, HEADER) as store:
        store.write_graph(graph(*map(layer, LAYERS)), SCHEMES)
        store.write_ranges({name: {"absmax": 1.0} for name in LAYERS})
        store.write_costs(
            Cost(name, s, 16 * (i + 1), 0.5, "k", False) for name in LAYERS for i, s in enumerate(SCHEMES)
        )
        store.write_measurements(
            (Measurement(name, s, m, 0.25, 0.125, 4) for name in LAYERS for s in SCHEMES[1:]
             for m in ("nsr", "clip_drop")), {"nsr": "quality", "clip_drop": "alignment"})  # fmt: skip
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(tmp_path_factory.mktemp("whole") / "x.profile")


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(whole, tmp_path / "x.profile"))


def edit(path: Path, *statements: str) -> None:
    db = sqlite3.connect(path)
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


def refuse(path: Path) -> str:
    lines = []
    for mode in ("r", "a"):
        with pytest.raises(ProfileError) as caught:
            open_profile(path, mode)
        lines.append(str(caught.value))
    assert lines[0].isprintable() and lines[1].isprintable()
    assert lines[0].replace("name a file that `bitplan profile` wrote", "choose another --out") == lines[1]
    assert len(lines[0]) < 500 + len(str(path))
    return lines[0]


ONE = "WHERE layer = 'unet.a' AND scheme = 'w8a8'"
EDITS = [
    ("UPDATE measurements SET metric = 'bytes' WHERE metric = 'nsr'", "a metric is named bytes"),
    ("UPDATE measurements SET metric = 'memory' WHERE metric = 'nsr'", "a metric is named memory"),
    ("UPDATE measurements SET metric = 'quality' WHERE metric = 'nsr'", "a metric is named quality"),
    ("UPDATE measurements SET metric = 'a b' WHERE metric = 'nsr'", "measurements, metric: 'a b' is not a metric"),
    (f"UPDATE measurements SET family = 'own' {ONE}", "is of the family 'own', and elsewhere of alignment"),
    ("UPDATE measurements SET family = 'fun'", "measurements, family: 'fun' is not one of quality, alignment, own"),
    (f"UPDATE measurements SET mean = -1 {ONE} AND metric = 'nsr'",
     "measurements, row unet.a / w8a8 / nsr: mean is -1.0 (real); it must be at least 0"),
    (f"UPDATE measurements SET mean = 9e999 {ONE}", "mean is inf (real); it must be a number of"),
    (f"UPDATE measurements SET mean = 'big' {ONE}", "mean is 'big' (text)"),
    (f"UPDATE measurements SET stderr = -0.5 {ONE}", "stderr is -0.5 (real)"),
    (f"UPDATE measurements SET stderr = 9e999 {ONE}", "infinite for some losses of 4 samples and finite for others"),
    (f"UPDATE measurements SET count = 0 {ONE}", "measurements, count: 0 is not from 1"),
    (f"UPDATE measurements SET count = 2.5 {ONE}", "measurements, count: 2.5 is not an integer"),
    (f"UPDATE measurements SET finite = 2 {ONE}", "finite is 2 (integer)"),
    (f"UPDATE measurements SET source = 'guess' {ONE}", "measurements, source: 'guess' is not one of exhaustive"),
    (f"UPDATE measurements SET scheme = 'w2a8' {ONE}", "scheme is 'w2a8' (text); it must be a name of"),
    (f"UPDATE measurements SET layer = 'unet.z' {ONE}", "it must be an address of the table layers"),
    (f"UPDATE costs SET bytes = 10.5 {ONE}", "costs, row unet.a / w8a8: bytes is 10.5 (real); it must be"),
    (f"UPDATE costs SET bytes = -1 {ONE}", "bytes is -1 (integer)"),
    (f"UPDATE costs SET bytes = {2**60} {ONE}", f"bytes is {2**60} (integer); it must be an integer from 0 to {2**53}"),
    (f"UPDATE costs SET bytes = x'00' {ONE}", "bytes is b'\\x00' (blob)"),
    (f"UPDATE costs SET ms = 9e999 {ONE}", "ms is inf (real)"),
    (f"UPDATE costs SET ms = -1.0 {ONE}", "ms is -1.0 (real)"),
    (f"UPDATE costs SET ms = 'soon' {ONE}", "ms is 'soon' (text)"),
    (f"UPDATE costs SET simulated = 7 {ONE}", "simulated is 7 (integer)"),
    (f"UPDATE costs SET kernel = x'ff' {ONE}", "kernel is b'\\xff' (blob)"),
    ("DELETE FROM costs WHERE scheme = 'keep' AND layer = 'unet.b'", "'unet.b' has no cost of the scheme keep"),
    ("UPDATE schemes SET name = 'w9a9' WHERE name = 'w4a8'", "it must be a name of the table schemes"),
    ("INSERT INTO schemes VALUES (9, 'w9z')", "schemes: 'w9z'"),
    ("UPDATE layers SET facts = replace(facts, '[4, 4]', '[4, NaN]')", "row unet.a: it is not JSON (NaN"),
    ("UPDATE layers SET facts = replace(facts, '[4, 4]', '[4, 4.5]')", "row unet.a, weight.1: 4.5 is not an int"),
    ("UPDATE layers SET facts = replace(facts, '[4, 4]', '[0, 4]')", "weight.0: 0 is not from 1"),
    ("UPDATE layers SET facts = replace(facts, 'linear', 'plane')", "kind: 'plane' is not one of linear"),
    ("UPDATE layers SET facts = replace(facts, '\"bias\"', '\"bais\"')", "unknown key 'bais'; did you mean 'bias'"),
    ("UPDATE layers SET facts = replace(facts, 'unet.b', 'unet.c')", "row unet.b, address: its facts are of 'unet.c'"),
    ("UPDATE layers SET facts = '[' WHERE position = 0", "layers, row unet.a: it is not JSON"),
    ("UPDATE graph SET value = '[[\"unet.a\", \"unet.z\"]]' WHERE key = 'edges'", "top: 'unet.z' is not a layer of"),
    ("UPDATE graph SET value = '7' WHERE key = 'tied'", "graph, row tied, the top: 7 is not a list"),
    ("UPDATE graph SET value = '[[\"unet.a\", \"unet.b\"], [\"unet.b\", \"unet.a\"]]' WHERE key = 'tied'",
     "graph, row tied, the top: 'unet.a' is listed twice"),
    ("UPDATE graph SET value = '[[\"unet.a\", \"unet.b\", \"unet.b\"]]' WHERE key = 'shared_inputs'",
     "graph, row shared_inputs, the top: 'unet.b' is listed twice"),
    ("DELETE FROM graph WHERE key = 'unused'", "graph: the row unused is missing"),
    ("UPDATE graph SET key = 'edgs' WHERE key = 'edges'", "graph: the row edges is missing"),
    ("UPDATE header SET value = json_set(value, '$.generation', 1) WHERE key = 'settings'",
     "header, settings.generation: 1 is not a mapping"),
    ("DELETE FROM header WHERE key = 'model'", "header, the top: 'model' is missing"),
    ("UPDATE header SET value = '[]' WHERE key = 'model'", "header, model: [] is not a mapping"),
    ("UPDATE header SET value = replace(value, 'abab', 'xyxy') WHERE key = 'model'", "header, model.fingerprint: "),
    ("UPDATE header SET value = json_set(value, '$.dtype', 'int3') WHERE key = 'model'", "dtype: 'int3' is not one"),
    ("UPDATE header SET value = '{\"prompts\": []}' WHERE key = 'settings'", "settings.prompts: it has 0 entries"),
    (f"UPDATE header SET value = '{'[' * 100_000}' WHERE key = 'settings'", "row settings: it is not JSON (it is"),
    ("UPDATE header SET value = json_set(value, '$.name', char(27) || '[2J') WHERE key = 'model'", ""),
    ("UPDATE header SET value = '{\"prompts\": [\"\\ud800\"]}' WHERE key = 'settings'", "is not Unicode text"),
    ("UPDATE ranges SET value = '{\"absmax\": -1}' WHERE layer = 'unet.a'", "ranges, row unet.a, absmax: -1 is not"),
    ("UPDATE ranges SET value = '{\"absmax\": 1e999}' WHERE layer = 'unet.a'", "ranges, row unet.a, absmax: inf"),
    ("INSERT INTO baseline VALUES ('probed', '{}')", "baseline, row probed, the top: 'prompts' is missing"),
    ("INSERT INTO responses VALUES ('unet.a', 'w8a8', 'nsr', 1, x'00000000')", "4 bytes are not for 0 samples"),
    ("INSERT INTO responses VALUES ('unet.a', 'w8a8', 'nsr', 0, x'00000000')", "probes is 0 (integer)"),
    ("CREATE VIEW songs AS SELECT 1", "it holds the view 'songs'"),
    ("CREATE TRIGGER t AFTER INSERT ON costs BEGIN DELETE FROM costs; END", "it holds the trigger 't'"),
    ("CREATE INDEX i ON costs (bytes + 1)", "it holds the index 'i'"),
    ("ALTER TABLE costs ADD COLUMN extra AS (bytes * 2)", "it holds the table 'costs'"),
    ("DROP TABLE responses", "1 of its tables are missing"),
    ("PRAGMA journal_mode = WAL", "write-ahead mode"),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "words"), EDITS, ids=[edit[:60] for edit, _ in EDITS])
def test_an_edit_is_refused_where_it_is(statement: str, words: str, copy: Path) -> None:
    edit(copy, statement)
    if words:
        assert words in refuse(copy)
    else:  # only shown, never obeyed
        open_profile(copy).close()


def test_a_view_in_the_place_of_a_table(copy: Path) -> None:
    edit(copy, "DROP TABLE costs", "CREATE VIEW costs AS WITH RECURSIVE n AS (SELECT 1 UNION ALL SELECT * FROM n) "
         "SELECT * FROM n")  # fmt: skip
    assert "it holds the view 'costs'" in refuse(copy)


def test_a_journal_that_names_another_file_deletes_nothing(copy: Path) -> None:
    """SQLite deletes the file that the end of a journal names, once it has undone the write."""
    victim = copy.with_name("victim")
    victim.write_bytes(b"keep me\0")
    named = os.fsencode(victim)
    checksum = sum(named) & 0xFFFFFFFF
    head = bytes.fromhex("d9d505f920a163d7") + bytes(4) + os.urandom(4) + (1).to_bytes(4, "big")
    head += (512).to_bytes(4, "big") + (4096).to_bytes(4, "big")
    tail = bytes(4) + named + len(named).to_bytes(4, "big") + checksum.to_bytes(4, "big") + head[:8]
    copy.with_name("x.profile-journal").write_bytes(head.ljust(512, b"\0") + tail)
    assert "x.profile-journal beside it names another file" in refuse(copy)
    assert victim.read_bytes() == b"keep me\0"


def test_a_log_beside_it_is_not_read(copy: Path) -> None:
    copy.with_name("x.profile-wal").write_bytes(b"")
    assert "x.profile-wal lies beside it" in refuse(copy)


def test_pipes_and_devices_do_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        assert "only regular files are read" in refuse(path)


@pytest.mark.parametrize("rows", ["measurements", "costs", "measurements, costs"])
def test_a_profile_in_the_middle_of_its_measurement_is_valid(rows: str, copy: Path) -> None:
    edit(copy, *(f"DELETE FROM {table} WHERE layer = 'unet.b'" for table in rows.split(", ")))
    with open_profile(copy) as store, pytest.raises(UserError, match="measurements are missing"):
        read_evidence(store)


VALUES = ("NULL", "-1", "0", "1e308", "9e999", "-9e999", "1.5", str(2**62),
          "''", "'x'", "'[]'", "'{}'", "x'00'", "'bytes'",
          "char(0)", "'unet.a'", "'keep'")  # fmt: skip


def test_random_edits_are_refused_in_one_line_or_are_still_numbers_in_range(whole: Path, tmp_path: Path) -> None:
    dice = random.Random(5)
    db = sqlite3.connect(whole)
    tables = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    columns = {table: [row[1] for row in db.execute(f"PRAGMA table_info({table})")] for table in tables}
    db.close()
    accepted = 0
    for number in range(250):
        path = Path(shutil.copy(whole, tmp_path / f"{number}.profile"))
        table = dice.choice(tables)
        place = dice.choice(("1", "rowid = 1"))
        try:
            edit(path, f"UPDATE {table} SET {dice.choice(columns[table])} = {dice.choice(VALUES)} WHERE {place}")
        except sqlite3.IntegrityError:
            continue
        try:
            with open_profile(path) as store:
                evidence = read_evidence(store)
        except (ProfileError, UserError, GraphError, MeasurementError) as error:
            assert str(error).isprintable()
            continue
        accepted += 1
        assert all(type(size) is int and 0 <= size <= 2**53 for size in evidence.size.values())
        assert all(0 <= ms <= 1e12 for ms in evidence.ms.values())
        assert set(evidence.metrics) <= {"nsr", "clip_drop", "x"}
    assert accepted > 10


FACTS = "SELECT facts FROM layers WHERE address = 'unet.a'"
WITH = f"""replace(({FACTS}), '{{{{"address": "unet.a"', '{{{{"address": "unet.b", {{}}')"""  # one more key


def test_facts_that_differ_in_the_address_alone_are_checked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"unet.{number}" for number in range(20)]
    with Profile.create(tmp_path / "x.profile", HEADER) as store:
        store.write_graph(graph(*map(layer, names)), SCHEMES)
    checked, check = [], schema.FACTS
    monkeypatch.setattr(schema, "FACTS", lambda facts: checked.append(facts["address"]) or check(facts))
    open_profile(tmp_path / "x.profile").close()
    assert checked == names[:1]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (f"replace(({FACTS}), 'unet.a', 'unet.c')", "layers, row unet.b, address: its facts are of 'unet.c'"),
        (FACTS, "layers, row unet.b, address: its facts are of 'unet.a'"),
        (WITH.format('"x": 1'), "unknown key 'x'"),
        (WITH.format('"address": "unet.a"'), "address: its facts are of 'unet.a'"),
        (WITH.format('"\\u0061ddress": "unet.a"'), "address: its facts are of 'unet.a'"),
        (f"replace(({FACTS}), 'unet.a', 'unet.b') || ' '", ""),
        (f"replace(({FACTS}), 'unet.a', 'unet.b') || '}}'", "it is not JSON"),
    ],
)  # fmt: skip
def test_facts_like_those_of_another_layer_are_checked_all_the_same(copy: Path, changed: str, message: str) -> None:
    edit(copy, f"UPDATE layers SET facts = ({changed}) WHERE address = 'unet.b'")
    if message:
        assert message in refuse(copy)
    else:
        open_profile(copy).close()


def test_a_repeated_key_in_all_facts_is_no_way_around(copy: Path) -> None:
    """The first one that is right would stand for the second one, which names the first one's layer."""
    for name in LAYERS:
        start = f'{{"address": "{name}"'
        edit(copy, f"UPDATE layers SET facts = replace(facts, '{start}', '{start}, \"address\": \"unet.a\"')"
             f" WHERE address = '{name}'")  # fmt: skip
    assert "layers, row unet.b, address: its facts are of 'unet.a'" in refuse(copy)
