from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest

import bitplan
from bitplan.planner.choice.request import resolve
from bitplan.planner.errors import UserError
from bitplan.planner.graph.layers import from_json
from bitplan.planner.profiles.profile import open_profile
from bitplan.planner.views.roles import by_role

ROLES = {"a": "in", "b": "time", "c": "time", "d": "out", "e": "in"}
GROUPS = {"a": ("a",), "b": ("b",), "c": ("c", "e"), "d": ("d",)}


def test_a_role_stands_for_its_layers_and_a_layer_beats_it() -> None:
    assert resolve({"role:time": "w8a8", "b": "keep"}, ROLES, GROUPS) == {"b": "keep", "c": "w8a8"}
    assert resolve({"role:in": "keep"}, ROLES, GROUPS) == {"a": "keep", "c": "keep"}  # c and e share their weight
    with pytest.raises(UserError, match="no layer or block is named 'x'; there are a, b, c, e, d"):
        resolve({"x": "keep"}, ROLES, GROUPS)
    assert resolve({"e": "w8a8"}, ROLES, GROUPS) == {"c": "w8a8"}  # as the group is named
    assert resolve({"role:time": "keep", "role:in": "keep"}, ROLES, GROUPS) == {"a": "keep", "b": "keep", "c": "keep"}


def test_bad_rules() -> None:
    with pytest.raises(
        UserError, match=r"no layer has the role 'inn'; the profile has in \(2\), out \(1\), time \(2\)"
    ):
        resolve({"role:inn": "keep"}, ROLES, GROUPS)
    with pytest.raises(UserError, match="c and the layers that share its weight are pinned twice"):
        resolve({"role:time": "keep", "role:in": "w8a8"}, ROLES, GROUPS)
    assert resolve({"role:time": "keep", "role:in": "w8a8", "c": "w8a8"}, ROLES, GROUPS)["c"] == "w8a8"
    with pytest.raises(UserError, match="contains no roles.*profile the model again"):
        resolve({"role:in": "keep"}, dict.fromkeys(ROLES, ""), GROUPS)


def layers_of(profile: Path, role: str) -> list[str]:
    with open_profile(profile) as store:
        return [layer.address for layer in by_role(from_json(store.graph()))[role]]


def test_roles_are_pinned_in_plans(finished: Path, tmp_path: Path, command_line: Any) -> None:
    out = tmp_path / "p.yaml"
    plan = bitplan.solve(finished, out, memory="40%", pins={"role:cross-attention": "w2ma8", "role:in": "keep"})
    cross = layers_of(finished, "cross-attention")
    assert len(cross) == 4 and all(".attn2." in layer for layer in cross)
    assert plan.solver["pins"] == dict.fromkeys(cross, "w2ma8") | {"unet.conv_in": "keep"}
    assert plan.solver["pins"].items() <= plan.schemes.items()
    assert not bitplan.verify(out, finished).failures

    done = command_line(
        "solve", finished, "--out", out, "--memory", "40%", "--keep", "role:in", "--keep", "unet.conv_out"
    )
    assert done.exit_code == 0, done.output
    assert "pinned: unet.conv_out = keep, unet.conv_in = keep" in done.output
    assert "| in " in done.output and "bits a weight" in done.output
    shown = command_line("inspect", out, "--profile", finished).output
    assert re.search(r"\| in +\| 1 +\| 32\.00 ", shown)
    assert "bits a weight" not in command_line("inspect", out).output
    assert "multiply-adds" in command_line("inspect", finished).output


def test_uniform_plans_and_sweeps_take_roles(finished: Path, tmp_path: Path) -> None:
    rule = {"role:out": "keep"}
    plan = bitplan.solve(finished, tmp_path / "u.yaml", uniform="w8a8", pins=rule)
    assert [plan.schemes["unet.conv_out"], plan.schemes["unet.conv_in"]] == ["keep", "w8a8"]
    bitplan.sweep(finished, tmp_path / "run", start="60%", stop="30%", points=2, pins=rule)
    from bitplan.plans.plan import load_plan

    assert {load_plan(path).solver["pins"]["unet.conv_out"] for path in (tmp_path / "run/plans").iterdir()} == {"keep"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--keep", "role:nose"), "no layer has the role 'nose'; the profile has in (1), out (1), time (8)"),
        (("--keep", "role:in", "--pin", "role:in=w8a8"), "--keep role:in and --pin role:in=w8a8 differ"),
    ],
)
def test_bad_rules_are_one_line(
    finished: Path, tmp_path: Path, command_line: Any, options: tuple[str, ...], said: str
) -> None:
    done = command_line("solve", finished, "--out", tmp_path / "p.yaml", "--memory", "40%", *options)
    assert done.exit_code == 2 and said in done.output and done.output.count("\n") == 1


def without_roles(profile: Path) -> None:
    """The profile as it was before there were roles."""
    with sqlite3.connect(profile) as db:
        for address, text in db.execute("SELECT address, facts FROM layers").fetchall():
            facts = {key: value for key, value in json.loads(text).items() if key != "role"}
            db.execute("UPDATE layers SET facts = ? WHERE address = ?", (json.dumps(facts), address))
        db.execute("DELETE FROM graph WHERE key = 'parts'")


def test_a_profile_without_roles(profile: Path, finished: Path, tmp_path: Path, command_line: Any) -> None:
    without_roles(profile)
    done = command_line("solve", profile, "--out", tmp_path / "p.yaml", "--memory", "40%", "--keep", "unet.conv_in")
    assert done.exit_code == 0 and "bits a weight" not in done.output
    done = command_line("solve", profile, "--out", tmp_path / "p.yaml", "--memory", "40%", "--keep", "role:in")
    assert "contains no roles" in done.output
    assert "by role" not in command_line("inspect", profile).output
    with open_profile(finished) as new, open_profile(profile, "a") as old:
        old.write_graph(new.graph(), new.schemes())  # goes on where an older version stopped
        assert "role" not in old.graph()["layers"][0]
