"""Profiles measured apart become the one that would have been measured at once, or are refused in one line."""

from __future__ import annotations

import dataclasses
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bitplan
from bitplan.planner.errors import UserError
from bitplan.planner.profiles.corrections import correct, corrections_of, estimates_of
from bitplan.planner.profiles.profile import Profile, content_digest, open_profile
from bitplan.planner.profiles.responses import probed, responses_of
from bitplan.sensitivity.correction import fit
from bitplan.sensitivity.table import Measurement
from tests import tiny
from tests.planner.support.profile_writer import MODEL, graph, layer


@pytest.fixture(scope="module")
def parts(tiny_folder: Path, clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """Three shares, measured apart, of what `oracle` measured at once."""
    folder = tmp_path_factory.mktemp("parts")
    options: Any = {"clip": str(clip_folder), "method": "exhaustive", **tiny.SETTINGS}
    return tuple(
        bitplan.profile(str(tiny_folder), folder / f"{k}.profile", part=f"{k}/3", **options) for k in (1, 2, 3)
    )


def test_the_shares_make_the_whole(parts: tuple[Path, ...], oracle: Path, tmp_path: Path) -> None:
    out = bitplan.merge(parts[::-1], tmp_path / "joined.profile")
    with open_profile(out) as joined, open_profile(oracle) as whole, open_profile(parts[0]) as first:
        assert content_digest(joined) == content_digest(whole)
        assert (joined.header(), joined.graph(), joined.schemes(), joined.ranges(), joined.families()) == (
            whole.header(), whole.graph(), whole.schemes(), whole.ranges(), whole.families(),
        )  # fmt: skip
        assert joined.costs() == first.costs()
    assert [path.name for path in tmp_path.iterdir()] == ["joined.profile"]
    plan = bitplan.solve(out, tmp_path / "p.plan.yaml", memory="30%", objective="quality")
    assert plan.schemes == bitplan.solve(oracle, tmp_path / "q.plan.yaml", memory="30%", objective="quality").schemes


def test_a_merged_profile_can_be_continued(
    parts: tuple[Path, ...], oracle: Path, tiny_folder: Path, clip_folder: Path, tmp_path: Path
) -> None:
    out = bitplan.merge(parts[:2], tmp_path / "two.profile")
    bitplan.profile(str(tiny_folder), out, clip=str(clip_folder), method="exhaustive", **tiny.SETTINGS)
    with open_profile(out) as joined, open_profile(oracle) as whole:
        assert content_digest(joined) == content_digest(whole)


def test_what_was_measured_twice_alike_is_fine(parts: tuple[Path, ...], oracle: Path, tmp_path: Path) -> None:
    out = bitplan.merge([oracle, *parts], tmp_path / "twice.profile", costs=oracle)
    with open_profile(out) as joined, open_profile(oracle) as whole:
        assert content_digest(joined) == content_digest(whole)
        assert joined.costs() == whole.costs()


def test_shares_made_by_probes_make_the_whole(tiny_folder: Path, clip_folder: Path, tmp_path: Path) -> None:
    """Estimates do not depend on what else is measured; checks do, for every share chooses its own."""
    options: Any = {"clip": str(clip_folder), "checks": 0, **tiny.SETTINGS}
    whole = bitplan.profile(str(tiny_folder), tmp_path / "whole.profile", **options)
    shares = [bitplan.profile(str(tiny_folder), tmp_path / f"{k}.profile", part=f"{k}/2", **options) for k in (1, 2)]
    out = bitplan.merge(shares, tmp_path / "joined.profile")
    with open_profile(out) as joined, open_profile(whole) as at_once, open_profile(shares[0]) as first:
        assert content_digest(joined) == content_digest(at_once)
        assert probed(joined) == probed(at_once)
        found, expected = responses_of(joined), responses_of(at_once)
        assert found.keys() == expected.keys() > responses_of(first).keys()
        assert all(np.array_equal(found[key], expected[key]) for key in expected)
    plan = bitplan.solve(out, tmp_path / "p.plan.yaml", memory="30%")
    assert repr(bitplan.predict(plan, out)) == repr(bitplan.predict(plan, whole))  # nan is not equal to nan


@pytest.fixture(scope="module")
def checked(tiny_folder: Path, clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """Two shares, each with checks of its own, in which everything measured is half as much again: so that estimates
    are to be moved, and in the second by more than in the first."""
    folder = tmp_path_factory.mktemp("checked")
    options: Any = {"clip": str(clip_folder), "checks": 8, **tiny.SETTINGS, "schemes": ("w2ma8", "w4a4")}
    paths = [bitplan.profile(str(tiny_folder), folder / f"{k}.profile", part=f"{k}/2", **options) for k in (1, 2)]
    for path, factor in zip(paths, (1.5, 3.0), strict=True):
        with sqlite3.connect(path) as db:
            db.execute(f"UPDATE measurements SET mean = {factor} * mean WHERE source = 'exhaustive'")
        with open_profile(path, "a") as store:
            correct(store, store.families())
    return tuple(paths)


def test_checks_of_all_shares_correct_all_estimates(checked: tuple[Path, ...], tmp_path: Path) -> None:
    joined = bitplan.merge(checked, tmp_path / "joined.profile")
    with open_profile(joined) as store:
        estimates, fits, found = estimates_of(store), corrections_of(store), store.measurements()
    exact = {(m.layer, m.scheme, m.metric): m.mean for m in found if m.source == "exhaustive"}
    assert len({key[:2] for key in exact}) == 16
    assert fits.keys() == {"nsr", "dssim", "embed_drift"}
    for metric, correction in fits.items():
        both = [key for key in estimates if key[2] == metric and key in exact]
        assert correction == fit([estimates[key].mean for key in both], [exact[key] for key in both])
    assert fits["nsr"].checks == 16 and fits["nsr"].applies
    for m in found:
        correction, estimate = fits.get(m.metric), estimates[m.layer, m.scheme, m.metric]
        factor = correction.factor(estimate.mean) if correction else 1.0
        assert m.source == "exhaustive" or m.mean == pytest.approx(factor * estimate.mean, rel=1e-12)
    with open_profile(checked[0]) as first, open_profile(checked[1]) as second:
        assert len({repr(corrections_of(store)["nsr"]) for store in (first, second)} | {repr(fits["nsr"])}) == 3


def test_neither_the_order_nor_corrections_of_their_own_matter(checked: tuple[Path, ...], tmp_path: Path) -> None:
    """What one share corrected otherwise than all together do was not measured twice."""
    joined = bitplan.merge(checked, tmp_path / "joined.profile")
    with open_profile(joined, "a") as store:
        correct(store, store.families())
    orders = [checked[::-1], (joined, *checked), (checked[1], joined)]
    for number, paths in enumerate(orders):
        again = bitplan.merge(
            paths, tmp_path / f"{number}.profile", costs=checked[0] if checked[0] in paths else joined
        )
        with open_profile(joined) as one, open_profile(again) as other:
            assert content_digest(one) == content_digest(other)
            assert one.baseline() == other.baseline()


def test_what_was_measured_stands_for_what_was_estimated(
    finished: Path, oracle: Path, parts: tuple[Path, ...], tmp_path: Path
) -> None:
    for paths in ([finished, oracle], [oracle, finished]):
        out = bitplan.merge(paths, tmp_path / f"{paths[0].parent.name}.profile", costs=oracle)
        with open_profile(out) as joined, open_profile(oracle) as whole, open_profile(finished) as probes:
            assert content_digest(joined) == content_digest(whole)
            assert responses_of(joined).keys() == responses_of(probes).keys()


def test_responses_that_differ_are_refused(checked: tuple[Path, ...], tmp_path: Path, command_line: Any) -> None:
    other = Path(shutil.copy(checked[0], tmp_path / "other.profile"))
    with sqlite3.connect(other) as db:
        db.execute("UPDATE responses SET sums = zeroblob(length(sums)) WHERE rowid = 5")
    result = command_line("merge", checked[0], other, "--out", tmp_path / "x.profile")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1), result.stderr
    assert "differ in the responses of" in result.stderr


@dataclasses.dataclass(frozen=True)
class Two:
    """Two profiles, the second a copy of the first to be changed by SQL."""

    one: Path
    two: Path

    def sql(self, *statements: str) -> list[object]:
        with sqlite3.connect(self.two) as db:
            for statement in statements:
                assert db.execute(statement).rowcount
        return [self.one, self.two]


def toy(path: Path) -> Path:
    header = {
        "model": MODEL, "settings": {"prompts": ["a cat"], "timesteps": 4},
        "machine": {"processor": "x86_64", "threads": 2, "device": "cpu"}, "versions": {"torch": "2.6"},
    }  # fmt: skip
    made = graph(layer("unet.a"), layer("unet.b"))
    with Profile.create(path, header) as store:
        store.write_graph(made, ("keep", "w8a8"))
        store.write_ranges({"unet.a": {"absmax": 2.0, "calls": 3}})
        store.write_measurements([Measurement("unet.a", "w8a8", "nsr", 0.25, 0.5, 4)], {"nsr": "quality"})
    return path


def put_cost(ms: float) -> str:
    return f"INSERT INTO costs VALUES ('unet.a', 'w8a8', 10, {ms}, 'k', 0, NULL)"


@pytest.fixture
def two(tmp_path: Path) -> Two:
    one = toy(tmp_path / "one.profile")
    return Two(one, Path(shutil.copy(one, tmp_path / "two.profile")))


def change(table: str, key: str, old: str, new: str) -> str:
    return f"UPDATE {table} SET value = replace(value, '{old}', '{new}') WHERE {key}"


REFUSED: list[tuple[str, str, Callable[[Two], list[object]]]] = [
    ("another model", "model.fingerprint: abab",
     lambda t: t.sql(change("header", "key = 'model'", "abab", "cdcd"))),
    ("other prompts", "settings.prompts", lambda t: t.sql(change("header", "key = 'settings'", "cat", "dog"))),
    ("another version", "versions.torch: 2.6 and 2.7",
     lambda t: t.sql(change("header", "key = 'versions'", "2.6", "2.7"))),
    ("another processor", "machine.processor: x86_64 and aarch64",
     lambda t: t.sql(change("header", "key = 'machine'", "x86_64", "aarch64"))),
    ("other layers", "layer graph.layers",
     lambda t: t.sql("UPDATE layers SET facts = replace(facts, 'false', 'true')")),
    ("other schemes", "schemes", lambda t: t.sql("UPDATE schemes SET name = 'w4a8' WHERE name = 'keep'")),
    ("other metrics", "metrics", lambda t: t.sql("UPDATE measurements SET metric = 'ssim'")),
    ("another range", "range of unet.a", lambda t: t.sql(change("ranges", "1", "2.0", "2.1"))),
    ("other losses", "losses of unet.a at w8a8: nsr 0.25 and nsr 0.5",
     lambda t: t.sql("UPDATE measurements SET mean = 0.5")),
    ("other errors of losses", "losses of unet.a at w8a8", lambda t: t.sql("UPDATE measurements SET stderr = 0.25")),
    ("costs of two machines", "--costs", lambda t: [t.sql(put_cost(1.0)) and t.one, toy_with_cost(t, 2.0), t.two]),
    ("costs of none of them", "not one of the profiles", lambda t: [t.one, t.two, "--costs", toy_with_cost(t, 1.0)]),
    ("one alone", "two profiles or more", lambda t: [t.one]),
    ("onto one of them", "choose another --out", lambda t: [t.one, t.two, "--out", t.two]),
    ("none that is there", "no such file", lambda t: [t.one, t.one.parent / "x.profile"]),
    ("text", "not a profile", lambda t: [t.one, t.one.with_name("text"), t.one.with_name("text").write_text("hi")]),
    ("into no folder", "--out", lambda t: [t.one, t.two, "--out", t.one.parent / "x" / "y.profile"]),
]  # fmt: skip


def toy_with_cost(t: Two, ms: float) -> Path:
    other = toy(t.one.with_name("three.profile"))
    Two(t.one, other).sql(put_cost(ms))
    return other


@pytest.mark.parametrize(("hint", "make"), [pytest.param(*case[1:], id=case[0]) for case in REFUSED])
def test_what_does_not_belong_together_is_refused(
    hint: str, make: Callable[[Two], list[object]], two: Two, command_line: Any
) -> None:
    arguments = [part for part in make(two) if not isinstance(part, int)]
    out = two.one.parent / "new.profile"
    result = command_line("merge", *arguments, *(() if "--out" in arguments else ("--out", out)))
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1), result.stderr
    assert result.stderr.startswith("bitplan: ")
    assert hint in result.stderr
    assert not out.exists()
    assert not list(two.one.parent.glob("*.part"))


def test_threads_may_differ_and_are_those_of_the_costs(two: Two) -> None:
    two.sql(change("header", "key = 'machine'", '"threads": 2', '"threads": 7'), put_cost(1.5))
    out = bitplan.merge([two.one, two.two], two.one.with_name("c.profile"))
    with open_profile(out) as store:
        assert store.header()["machine"]["threads"] == 7
        assert [cost.ms for cost in store.costs()] == [1.5]


def test_ranges_may_differ_by_rounding(two: Two) -> None:
    two.sql(change("ranges", "1", "2.0", "2.0000001"))
    with open_profile(bitplan.merge([two.one, two.two], two.one.with_name("c.profile"))) as store:
        assert store.ranges() == {"unet.a": {"absmax": 2.0, "calls": 3}}


def test_schemes_may_come_in_any_order(tmp_path: Path) -> None:
    """Parts that were measured with `--schemes` in another order are merged by name, with one digest."""
    texts, parts = ("w8a8", "w4a8", "w2a8"), []
    for number, order, way in ((0, texts, 1), (1, texts[::-1], -1)):
        header = {"model": MODEL | {"components": ["unet", "vae"][::way]},
                  "settings": {"prompts": ["a cat"], "schemes": list(order), "metrics": ["nsr", "dssim"][::way]},
                  "machine": {"threads": 2}, "versions": {"torch": "2.6"}}  # fmt: skip
        with Profile.create(tmp_path / f"{number}.profile", header) as store:
            store.write_graph(graph(layer("unet.a"), layer("unet.b")), ("keep", *order))
            of = f"unet.{'ab'[number]}"
            store.write_measurements(
                [Measurement(of, text, name, 0.25, 0.5, 4) for text in order for name in ("dssim", "nsr")]
                + [Measurement("unet.b", "w8a8", name, 0.25, 0.5, 4) for name in ("nsr", "dssim")][: 2 - 2 * number],
                {"nsr": "quality", "dssim": "quality"},
            )
            parts.append(store.path)
    merged = [bitplan.merge(each, tmp_path / f"m{len(each[0].name)}{n}.profile")
              for n, each in enumerate((parts, parts[::-1]))]  # fmt: skip
    with open_profile(merged[0]) as one, open_profile(merged[1]) as two:
        assert content_digest(one) == content_digest(two) and len(list(one.measurements())) == 12
        for store in (one, two):
            assert store.schemes() == ("keep", *store.header()["settings"]["schemes"])


def test_the_user_says_whose_costs(two: Two) -> None:
    two.sql(put_cost(1.0))
    three = toy_with_cost(two, 2.0)
    with pytest.raises(UserError, match="different costs"):
        bitplan.merge([two.two, three], two.one.with_name("c.profile"))
    with open_profile(bitplan.merge([two.two, three], two.one.with_name("c.profile"), costs=str(three))) as store:
        assert [cost.ms for cost in store.costs()] == [2.0]


def test_what_is_missing_and_what_added_nothing_is_said(two: Two, tmp_path: Path, command_line: Any) -> None:
    done = command_line("merge", two.one, two.two, "--out", tmp_path / "bare.profile")
    assert done.exit_code == 0 and "bare.profile is not finished: no profile holds costs" in done.stderr
    pairs = [(layer, scheme) for layer in ("unet.a", "unet.b") for scheme in ("keep", "w8a8")]
    rows = ", ".join(f"('{layer}', '{scheme}', 9, 1.0, 'k', 0, NULL)" for layer, scheme in pairs)
    costs = f"INSERT INTO costs VALUES {rows}"
    done = command_line("merge", *two.sql(costs), "--out", tmp_path / "twice.profile")
    assert f"{two.two} adds no loss to the other profiles\n" in done.stderr and f"{two.one} adds" not in done.stderr
    assert "twice.profile is not finished: 1 of 2 (layer, scheme) are missing, such as unet.b at w8a8" in done.stderr
    assert done.exit_code == 0
    losses = "UPDATE measurements SET layer = 'unet.b'"
    done = command_line("merge", *two.sql(losses), "--out", tmp_path / "whole.profile")
    assert done.exit_code == 0 and done.stderr == "", done.stderr
