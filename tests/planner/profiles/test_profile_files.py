"""Profiles that are damaged, those of others, and files and disks that cannot be written."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitplan.planner.profiles.file import ProfileError
from bitplan.planner.profiles.profile import Profile, open_profile
from tests.planner.support.measured import read_all, silent
from tests.planner.support.profile_writer import GRAPH, HEADER, LAYERS, SCHEMES, fill

CRASH = """
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA cache_size = 1")
db.execute("BEGIN IMMEDIATE")
db.execute("UPDATE measurements SET mean = 1e9, metric = metric || hex(randomblob(200))")  # spills into the file
os.kill(os.getpid(), 9)
"""


def test_a_write_cut_in_its_middle_is_undone_even_by_a_reader(path, full):
    path.write_bytes(full.read_bytes())
    subprocess.run([sys.executable, "-c", CRASH, str(path)], check=False)
    assert len(os.listdir(path.parent)) == 2 and path.read_bytes() != full.read_bytes()
    assert read_all(path) == read_all(full)
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("opener", [open_profile, lambda p: open_profile(p, "a"), lambda p: Profile.create(p, HEADER)])
def test_truncated_anywhere(path, full, opener):
    whole = full.read_bytes()
    cuts = [1, 15, 16, 99, 100, 511, 512, 513, 1023, 4095, 4096, 4097, len(whole) - 1, len(whole) - 4096]
    for cut in [*cuts, *range(7, len(whole), len(whole) // 60)]:
        path.write_bytes(whole[:cut])
        with pytest.raises(ProfileError, match=r"x\.profile: .*; .*(--out|bitplan profile)") as caught:
            opener(path)
        assert "\n" not in str(caught.value)
        assert path.read_bytes() == whole[:cut]
        assert os.listdir(path.parent) == [path.name]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(st.data())
def test_damaged_bytes_raise_nothing_else(path, full, data):
    whole = bytearray(full.read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(whole) - 1) | st.integers(0, 200), min_size=1, max_size=8)):
        whole[at] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)
    try:
        read_all(path)
    except ProfileError as error:
        assert "\n" not in str(error)
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("size", [1, 20, 600, 5000])
def test_files_of_others_are_left_alone(path, size):
    path.write_bytes(b"dear diary " * 500)
    os.truncate(path, size)
    writers = (lambda p: open_profile(p, "a"), lambda p: Profile.create(p, HEADER))
    for opener, advice in ((open_profile, "name a file that `bitplan"), *((each, "another --out") for each in writers)):
        with pytest.raises(ProfileError, match=f"not a profile; .*{advice}"):
            opener(path)
    assert path.read_bytes() == (b"dear diary " * 500)[:size]


def test_databases_of_others_are_left_alone(path):
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE songs (title)")
    db.close()
    before = path.read_bytes()
    for opener in (open_profile, lambda p: Profile.create(p, HEADER)):
        with pytest.raises(ProfileError, match="this is not a profile"):
            opener(path)
    assert path.read_bytes() == before


def test_a_start_cut_off_is_started_again(path):
    path.touch()
    with pytest.raises(ProfileError, match="stopped before it began"):
        open_profile(path)
    with pytest.raises(ProfileError, match="stopped before it began"):
        open_profile(path, "a")
    with Profile.create(path, HEADER) as p:
        assert p.header() == HEADER


@pytest.mark.parametrize(("version", "advice"), [(5, "upgrade BitPlan, or profile again"), (1, "profile again")])
def test_other_formats(path, full, version, advice):
    path.write_bytes(full.read_bytes())
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {version}")
    db.commit()
    db.close()
    with pytest.raises(ProfileError, match=f"format {version}, this BitPlan reads 2 to 4; {advice}"):
        open_profile(path)


def in_child(work) -> None:
    """Run `work` in a fork; as nobody where we are root, whom permissions do not bind."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            if os.geteuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.fixture
def open_folder():
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)
        os.chmod(name, stat.S_IRWXU)


@pytest.mark.parametrize(("file_mode", "folder_mode"), [(0o444, 0o555), (0o666, 0o555), (0o444, 0o777)])
def test_read_only(open_folder, full, file_mode, folder_mode):
    path = open_folder / "x.profile"
    path.write_bytes(full.read_bytes())
    path.chmod(file_mode)
    open_folder.chmod(folder_mode)

    def work() -> None:
        assert read_all(path)[-1]
        for opener in (lambda: Profile.create(path, HEADER), lambda: open_profile(path, "a")):
            with pytest.raises(ProfileError, match="(is read-only|is writable).*--out"):
                opener()
        if folder_mode == 0o555:
            with pytest.raises(ProfileError, match="is writable.*--out"):
                Profile.create(open_folder / "new.profile", HEADER)

    in_child(work)
    assert os.listdir(open_folder) == [path.name]


def test_unreadable_folder(open_folder, full):
    (open_folder / "x.profile").write_bytes(full.read_bytes())
    open_folder.chmod(0o000)

    def work() -> None:
        for opener in (open_profile, lambda p: Profile.create(p, HEADER)):
            with pytest.raises(ProfileError, match="Permission denied; (name a file|choose another --out)"):
                opener(open_folder / "x.profile")

    in_child(work)


@pytest.mark.parametrize("limit", [0, 5000, 100_000, 120_000])
def test_disk_full(open_folder, limit):
    """A limit on file size stands for the full disk: what was written stays, the error is one line, and it goes on."""
    path, done = open_folder / "x.profile", open_folder / "done"
    open_folder.chmod(0o777)
    done.touch()
    done.chmod(0o666)

    def work() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        count = []
        with pytest.raises(ProfileError, match="disk.*run the same command again; finished writes are safe") as caught:
            fill(str(path), lambda *pair: count.append(pair))
        assert "\n" not in str(caught.value)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        done.write_text(str(len(count)))

    in_child(work)
    count = int(done.read_text())
    assert (count > 0) == (limit >= 100_000)
    if count:
        assert len(read_all(path)[9]) == count
    fill(str(path), silent)
    assert len(read_all(path)[9]) == len(SCHEMES) * LAYERS
    assert sorted(os.listdir(open_folder)) == ["done", "x.profile"]


def test_full_database_keeps_the_writer_alive(path):
    with Profile.create(path, HEADER) as p:
        p.write_graph(GRAPH, SCHEMES)
        p._db.execute(f"PRAGMA max_page_count = {p._db.execute('PRAGMA page_count').fetchone()[0]}")
        with pytest.raises(ProfileError, match="disk is full"):
            p.write_baseline({"big": "x" * 10_000})
        assert p.baseline() == {}
        p._db.execute("PRAGMA max_page_count = 100000")
        p.write_baseline({"big": "x" * 10_000})
    assert len(read_all(path)[5]["big"]) == 10_000
