from __future__ import annotations

import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitplan.planner.profiles.file import ProfileError
from bitplan.planner.profiles.fitted import read_parameters, write_parameters
from bitplan.planner.profiles.profile import Cost, Profile, content_digest, open_profile
from bitplan.sensitivity.table import LossTable, Measurement
from tests.planner.support.measured import read_all, silent
from tests.planner.support.older import older
from tests.planner.support.profile_writer import FAMILIES, GRAPH, HEADER, LAYERS, SCHEMES, fill, measure

ROOT = Path(__file__).parents[3]


def test_round_trip(path):
    costs = [Cost("unet.2", "keep", 10**12, None, "", False), Cost("unet.0", "w8a8", 7, 0.1, "cpu_int8", True)]
    rows = [
        Measurement("unet.1", "w4g64a8", "ssim", 0.1 + 0.2, math.inf, 1, False),
        Measurement("unet.1", "w4g64a8", "clip", -1e-300, 5e-324, 2),
    ]
    first = Measurement("unet.1", "w8a8", "noise", 1 / 3, 0.0, 3)
    with Profile.create(path, HEADER) as p:
        assert p.graph() == {"layers": []}
        p.write_graph(GRAPH, SCHEMES)
        p.write_graph(GRAPH, SCHEMES)
        p.write_ranges({"unet.3": {"absmax": 0.5}, "unet.1": {"absmax": 1.5, "first_absmax": None}})
        p.write_ranges({"unet.3": {"absmax": 0.25}})
        p.write_baseline({"ms": 3.5, "clip": 0.31})
        p.write_costs(costs)
        p.write_measurements(rows, FAMILIES)
        p.write_measurements([first], FAMILIES)
        inside = p.measurements()
    with open_profile(path) as p:
        assert (p.header(), p.graph(), p.schemes()) == (HEADER, GRAPH, SCHEMES)
        assert list(p.ranges().items()) == [
            ("unet.1", {"absmax": 1.5, "first_absmax": None}),
            ("unet.3", {"absmax": 0.25}),
        ]
        assert p.baseline() == {"clip": 0.31, "ms": 3.5}
        assert p.costs() == tuple(costs[::-1])
        assert p.measurements() == inside == (first, rows[1], rows[0])
        assert p.families() == {"clip": "alignment", "noise": "quality", "ssim": "quality"}
        assert p.measured() == {("unet.1", "w8a8"), ("unet.1", "w4g64a8")}
        assert LossTable.of(p.measurements()).loss("unet.1", "w8a8", "noise") == 1 / 3
    assert os.listdir(path.parent) == [path.name]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=6, deadline=None)
@given(st.permutations([(f"unet.{i}", scheme) for i in range(3) for scheme in SCHEMES]))
def test_order_and_digest_do_not_depend_on_the_order_of_writing(tmp_path_factory, order):
    path = tmp_path_factory.mktemp("order") / "x.profile"
    with Profile.create(path, HEADER) as p:
        p.write_graph(GRAPH, SCHEMES)
        for layer, scheme in order:
            p.write_measurements(measure(layer, scheme)[:: random.choice([1, -1])], FAMILIES)
        assert list(dict.fromkeys((m.layer, m.scheme) for m in p.measurements())) == sorted(
            order, key=lambda pair: (pair[0], SCHEMES.index(pair[1]))
        )
        digest = content_digest(p)
    assert digest == content_digest_of_sorted(tmp_path_factory, order)


def content_digest_of_sorted(factory, order) -> str:
    with Profile.create(factory.mktemp("sorted") / "x.profile", HEADER) as p:
        p.write_graph(GRAPH, SCHEMES)
        p.write_measurements([m for pair in sorted(order) for m in measure(*pair)], FAMILIES)
        return content_digest(p)


def test_digest_sees_every_number_and_no_timing(path):
    base = Measurement("unet.0", "keep", "noise", 0.5, 0.1, 3)
    changes = [{}, {"mean": math.nextafter(0.5, 1)}, {"stderr": math.inf}, {"count": 4}, {"finite": False},
               {"scheme": "w8a8"}, {"layer": "unet.1"}, {"metric": "ssim"}]  # fmt: skip
    digests = []
    for i, change in enumerate(changes):
        with Profile.create(path.with_name(f"{i}.profile"), HEADER) as p:
            p.write_graph(GRAPH, SCHEMES)
            p.write_measurements([replace(base, **change)], FAMILIES)
            digests.append(content_digest(p))
            p.write_costs([Cost("unet.0", "keep", 4, 0.5, "", False)])
            assert content_digest(p) == digests[-1]
    assert len(set(digests)) == len(changes)


def test_continues_under_the_same_header_only(path):
    with Profile.create(path, HEADER) as p:
        p.write_graph(GRAPH, SCHEMES)
        p.write_measurements(measure("unet.0", "keep"), FAMILIES)
    with Profile.create(path, {**HEADER, "settings": {**HEADER["settings"], "prompts": ("a circle", "a square")}}) as p:
        assert p.measured() == {("unet.0", "keep")}
        with pytest.raises(ProfileError, match="other layers or schemes.*--out"):
            p.write_graph(GRAPH, SCHEMES[1:])
        with pytest.raises(ProfileError, match="other layers or schemes.*--out"):
            p.write_graph({**GRAPH, "edges": []}, SCHEMES)
    other = {**HEADER, "settings": {"steps": 9, "prompts": ["x" * 500]}, "seed": 1}
    with pytest.raises(ProfileError) as caught:
        Profile.create(path, other)
    text = str(caught.value)
    assert "settings.steps 4 -> 9" in text and "seed absent -> 1" in text and "--out" in text
    assert len(text) < 400 and "\n" not in text
    with pytest.raises(ProfileError, match='fingerprint "ab12" -> absent'):
        Profile.create(path, {k: v for k, v in HEADER.items() if k != "fingerprint"})
    with Profile.create(path, HEADER):  # the refusals let go of the lock
        pass


@pytest.mark.parametrize(
    ("write", "why"),
    [
        (lambda p: p.write_measurements(measure("unet.0", "keep"), FAMILIES), "unet.0 / keep / noise.*exists already"),
        (lambda p: p.write_measurements([Measurement("unet.1", "w9a9", "ssim", 1, 1, 1)], FAMILIES), "w9a9.*not in"),
        (lambda p: p.write_measurements([Measurement("vae.1", "keep", "ssim", 1, 1, 1)], FAMILIES), "vae.1.*not in"),
        (lambda p: p.write_costs([Cost("vae.1", "keep", 1, 1, "", False)]), "vae.1 / keep.*not in"),
        (lambda p: p.write_ranges({"vae.1": 1}), "vae.1.*not in"),
        (lambda p: p.write_ranges({"unet.1": math.nan}), "unet.1 cannot be stored"),
        (lambda p: p.write_baseline({"clip": object()}), "clip cannot be stored"),
    ],
)
def test_refused_rows_leave_nothing(path, write, why):
    with Profile.create(path, HEADER) as p:
        p.write_graph(GRAPH, SCHEMES)
        p.write_measurements(measure("unet.0", "keep"), FAMILIES)
    before = read_all(path)
    with open_profile(path, "a") as p:
        with pytest.raises(ProfileError, match=why):
            write(p)
        p.write_measurements(measure("unet.0", "w8a8"), FAMILIES)
    assert len(read_all(path)[7]) == len(before[7]) + len(FAMILIES)
    assert read_all(path)[4:7] == before[4:7]


def test_a_part_refused_refuses_the_whole_and_the_writer_goes_on(path):
    with Profile.create(path, HEADER) as p:
        with pytest.raises(ProfileError, match="each layer and each scheme once"):
            p.write_graph(GRAPH, ("keep", "keep"))
        assert p.layers() == ()
        p.write_graph(GRAPH, SCHEMES)
        bad = Measurement("unet.0", "w9a9", "ssim", 1, 1, 1)
        with pytest.raises(ProfileError):
            p.write_measurements([*measure("unet.0", "keep"), bad], FAMILIES)
        assert p.measurements() == ()

        def interrupted():
            yield measure("unet.0", "keep")[0]
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            p.write_measurements(interrupted(), FAMILIES)
        p.write_measurements(measure("unet.0", "keep"), FAMILIES)
        assert len(p.measurements()) == len(FAMILIES)


def start_writer(path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.planner.support.profile_writer", str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def test_killed_ten_times_nothing_is_lost(path, full):
    """A file killed and continued ten times ends with the measurements of an undisturbed one."""
    acknowledged: list[tuple[str, ...]] = []
    dice = random.Random(7)
    for _ in range(10):
        child = start_writer(path)
        lines = [child.stdout.readline()]  # it is past its start
        for _ in range(dice.randrange(12)):
            lines.append(child.stdout.readline())
        time.sleep(dice.uniform(0, 0.003))
        child.send_signal(signal.SIGKILL)
        rest, _ = child.communicate()
        assert child.returncode == -signal.SIGKILL
        acknowledged += [tuple(line.split()) for line in [*lines, *rest.splitlines()] if line]
        with open_profile(path) as p:
            measured = p.measured()
            assert measured >= set(acknowledged)
            assert len(measured) <= len(acknowledged) + 1
            assert p.measurements() == tuple(m for pair in sorted_pairs(measured) for m in sorted_metrics(pair))
        acknowledged = list(measured)  # the one under way may have landed
    assert start_writer(path).communicate()[0]
    with open_profile(path) as p, open_profile(full) as undisturbed:
        assert content_digest(p) == content_digest(undisturbed)
        assert p.measurements() == undisturbed.measurements()
    assert os.listdir(path.parent) == [path.name]


def sorted_pairs(pairs):
    return sorted(pairs, key=lambda pair: (int(pair[0].split(".")[1]), SCHEMES.index(pair[1])))


def sorted_metrics(pair):
    return sorted(measure(*pair), key=lambda m: m.metric)


def test_one_writer_many_readers(path):
    with Profile.create(path, HEADER) as p:
        p.write_graph(GRAPH, SCHEMES)
        for scheme in SCHEMES:
            for opener in (lambda: Profile.create(path, HEADER), lambda: open_profile(path, "a")):
                with pytest.raises(ProfileError, match="another process is writing"):
                    opener()
            with open_profile(path) as reader:
                p.write_measurements(measure("unet.0", scheme), FAMILIES)
                assert reader.measured() == p.measured() and ("unet.0", scheme) in reader.measured()
    with open_profile(path, "a") as p:
        p.write_measurements(measure("unet.1", "keep"), FAMILIES)


def test_a_reader_cannot_write_and_a_closed_profile_does_nothing(path, full):
    path.write_bytes(full.read_bytes())
    with open_profile(path) as p, pytest.raises(ProfileError, match="mode 'a'"):
        p.write_baseline({"ms": 1})
    p.close()
    with pytest.raises(ProfileError, match="was closed"):
        p.measurements()
    with pytest.raises(ProfileError, match="mode is"):
        open_profile(path, "w")


def test_paths_that_cannot_be(path):
    with pytest.raises(ProfileError, match=r"no such file.*bitplan profile PIPELINE --out"):
        open_profile(path)
    assert not path.exists()
    with pytest.raises(ProfileError, match=r"folder .* does not exist; create it"):
        Profile.create(path / "deeper" / "x.profile", HEADER)
    with pytest.raises(ProfileError, match=r"--out"):
        Profile.create(path.parent, HEADER)
    with pytest.raises(ProfileError, match="directory"):
        open_profile(path.parent)
    with pytest.raises(ProfileError, match="header cannot be stored"):
        Profile.create(path, {"model": object()})
    odd = path.with_name("50% of ä #1?mode=ro&x.profile")
    fill(str(odd), silent)
    assert os.listdir(path.parent) == [odd.name]
    assert len(read_all(odd)[7]) == len(FAMILIES) * len(SCHEMES) * LAYERS


def test_no_torch():
    code = "import sys, bitplan.planner.profiles.profile; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize(("first", "last"), [(2, 3), (4, 4)])
def test_fitted_parameters_make_a_file_of_format_3_or_later(path, tmp_path, first, last):
    new = path if first == 4 else tmp_path / "new"
    with Profile.create(new, HEADER) as p:
        p.write_graph(GRAPH, SCHEMES)
        layer = p.layers()[0]
    if first == 2:
        older(new, path)
    with open_profile(path, "a") as p:
        write_parameters(p, {})
        assert read_parameters(p) == {}
    assert sqlite3.connect(path).execute("PRAGMA user_version").fetchone() == (first,)
    key, other = (layer, "+even"), (layer, "+odd")
    with open_profile(path, "a") as p:
        write_parameters(p, {key: {"scale": np.arange(3, dtype=np.float32)}})
        write_parameters(p, {key: {"scale": np.arange(4, dtype=np.float32)}, other: {"a": np.ones((2, 2), np.float32)}})
    with open_profile(path) as p:
        found = read_parameters(p)
        assert found.keys() == {key, other} and found[key]["scale"].tolist() == [0, 1, 2, 3]
    assert sqlite3.connect(path).execute("PRAGMA user_version").fetchone() == (last,)
    with open_profile(path, "a") as p, pytest.raises(ProfileError, match="conflict"):
        write_parameters(p, {("unet.nowhere", "+even"): {"scale": np.ones(1, np.float32)}})
