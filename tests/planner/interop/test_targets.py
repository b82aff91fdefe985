"""Exports: each target's answer for every scheme, and the written files read back."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st

import bitplan
from bitplan.planner.errors import BAD_INPUT, UserError
from bitplan.planner.graph.layers import Layer
from bitplan.planner.interop.export import export_files
from bitplan.planner.interop.model import Model, read_model
from bitplan.planner.targets import TARGETS
from bitplan.planner.targets.base import Target, distance, nearest_scheme, why
from bitplan.plans.geometry import Geometry
from bitplan.plans.plan import Plan, PlanError, save_plan
from bitplan.plans.scheme import EXAMPLES, KEEP, every_scheme, parse_scheme
from tests.planner.support.exporting import mixed, plan_for, tiny_model

ALL = [pytest.param(target, id=name) for name, target in TARGETS.items()]
GEOMETRY = Geometry((3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros")


def layer(*weight: int, address: str = "unet.mid.layer", aliases: tuple[str, ...] = ()) -> Layer:
    kind, geometry = ("linear", None) if len(weight) == 2 else ("conv2d", GEOMETRY)
    return Layer(address, aliases, kind, weight, False, 1, geometry, ())


LAYERS = {
    "linear": layer(512, 256), "narrow": layer(64, 32), "odd": layer(30, 33), "conv": layer(64, 128, 3, 3),
    "1x1": layer(64, 64, 1, 1), "first": layer(32, 4, 3, 3), "shouting": layer(512, 256, address="unet.Mid.layer"),
}  # fmt: skip


@pytest.fixture
def plan(model: Model) -> Plan:
    return plan_for(model, mixed(model.layers))


# --- what a target can express


@pytest.mark.parametrize("target", ALL)
@pytest.mark.parametrize("name", LAYERS)
def test_the_nearest_can_be_expressed_and_is_the_nearest(target: Target, name: str) -> None:
    one = LAYERS[name]
    able = [scheme for scheme in every_scheme() if why(target, scheme, one) is None]
    assert KEEP in able
    for planned in map(parse_scheme, EXAMPLES):
        found = nearest_scheme(target, planned, one)
        assert found in able
        assert distance(planned, found) == min(distance(planned, scheme) for scheme in able)
        assert (found == planned) == (planned in able)


@pytest.mark.parametrize("target", ALL)
def test_reasons_are_one_line_and_no_tool_has_a_first_token(target: Target) -> None:
    pairs = [(scheme, why(target, scheme, one)) for one in LAYERS.values() for scheme in every_scheme()]
    for scheme, reason in pairs:
        assert reason is None or (reason and "\n" not in reason)
        assert reason or not scheme.transforms


@pytest.mark.parametrize("target", ALL)
def test_layers_that_have_no_one_name_inside_stay_as_they_are(target: Target) -> None:
    for one in (layer(512, 256, address="proj"), layer(512, 256, aliases=("unet.other",))):
        assert why(target, parse_scheme("w8a16"), one) and nearest_scheme(target, parse_scheme("w8a16"), one) == KEEP


@pytest.mark.parametrize(
    ("to", "kind", "planned", "written"),
    [
        ("torchao", "linear", "w8a8", "w8a8"),
        ("torchao", "linear", "w8g64za16", "w8g64za16"),
        ("torchao", "linear", "w4g64ma8", "w8a8"),  # stored in 8 bits in any case
        ("torchao", "linear", "w8g64a8", "w8a8"),
        ("torchao", "linear", "fp8a8", "fp8a16"),
        ("torchao", "linear", "w8a8t+first", "w8a8"),
        ("torchao", "odd", "w8g32a16", "w8a16"),
        ("torchao", "conv", "w8a16", "keep"),
        ("sdnq", "linear", "w3g64ma8", "w3g64a8"),
        ("sdnq", "linear", "w4za16", "w4za16"),
        ("sdnq", "conv", "w8a8", "w8a8"),
        ("sdnq", "conv", "w4a8", "w4g64a8"),  # fewer than 8 bits only with groups, and more than one
        ("sdnq", "first", "w8a8", "w8a16"),
        ("sdnq", "linear", "w4a4", "w4a8"),
        ("modelopt", "conv", "w6a8", "w6a8"),
        ("modelopt", "conv", "w4g64a8t", "w4a8t"),
        ("modelopt", "linear", "w4g64za8t+first", "w4g64a8t"),
        ("modelopt", "linear", "fp8a8", "fp8a8"),
        ("gguf-recipe", "linear", "w4g32a16", "w4g32a16"),
        ("gguf-recipe", "linear", "w4ma8", "w4g32a8"),
        ("gguf-recipe", "linear", "w3g64ma8", "w3g32ma8"),
        ("gguf-recipe", "narrow", "w3g64ma8", "w4g32a8"),  # no block of 256 fits
        ("gguf-recipe", "linear", "w2a16", "w2g32zma16"),
        ("gguf-recipe", "odd", "w8a8", "keep"),
        ("sdnq", "odd", "w4a16", "w4a16"),
        ("sdnq", "odd", "w3a16", "w4a16"),  # 990 codes of 3 bits fill no whole bytes
        ("gguf-recipe", "conv", "w8a8", "keep"),
        ("gguf-recipe", "shouting", "w8g32a16", "keep"),
    ],
)
def test_known_answers(to: str, kind: str, planned: str, written: str) -> None:
    assert str(nearest_scheme(TARGETS[to], parse_scheme(planned), LAYERS[kind])) == written


@given(st.sampled_from(every_scheme()), st.sampled_from(every_scheme()))
def test_nothing_is_nearer_to_a_scheme_than_itself(one: Any, other: Any) -> None:
    assert (distance(one, other) > distance(one, one)) == (one != other)
    assert parse_scheme(str(one)) == one


# --- refusing and approximating


@pytest.mark.parametrize("target", ALL)
def test_a_plan_that_cannot_be_expressed_is_refused_with_numbers(
    target: Target, plan: Plan, model: Model, tmp_path: Path
) -> None:
    refused = [la for la, s in plan.schemes.items() if why(target, parse_scheme(s), model.layers[la])]
    with pytest.raises(UserError, match="--approximate") as caught:
        export_files(plan, model, target, tmp_path / "x", approximate=False)
    said = str(caught.value)
    assert f"{target.name} cannot express {len(refused)} of {len(plan.schemes)} layers" in said
    named = re.findall(r"the first (\S+) \((\S+)\): ", said)
    assert named and "\n" not in said and all(la in refused and plan.schemes[la] == s for la, s in named)
    first = {why(target, parse_scheme(plan.schemes[la]), model.layers[la]): la for la in reversed(refused)}
    assert {la for la, _ in named} <= set(first.values())
    kinds = [int(n) for n in re.findall(r"(?:: |; )(\d+)(?:, the first| for other)", said)]
    assert sum(kinds) == len(refused) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("target", ALL)
def test_an_approximated_plan_lists_all_that_was_changed(
    target: Target, plan: Plan, model: Model, tmp_path: Path
) -> None:
    exports = export_files(plan, model, target, tmp_path / "x", approximate=True)
    (export,) = exports
    changed = {change.layer: change for change in export.changes}
    for address, planned in plan.schemes.items():
        now = export.schemes[address]
        assert (address in changed) == (now != planned)
        assert why(target, parse_scheme(now), model.layers[address]) is None
        if address in changed:
            assert (changed[address].planned, changed[address].written) == (planned, now)
    assert list(export.schemes) == list(plan.schemes)
    rows = [line.strip("| ").split(" | ") for line in str(exports).splitlines() if line.startswith("| ")][1:]
    told = {(row[0].strip(), row[1].strip(), row[-1].strip()): int(row[2]) for row in rows}
    assert told == Counter((change.planned, change.written, change.reason) for change in export.changes)
    assert f"{target.name} for unet" in str(export) and "lost: " in str(export) and str(export.path) in str(export)


@pytest.mark.parametrize("target", ALL)
def test_an_expressible_plan_needs_no_permission_and_changes_nothing(
    target: Target, model: Model, tmp_path: Path
) -> None:
    near = {la: str(nearest_scheme(target, parse_scheme(s), model.layers[la])) for la, s in mixed(model.layers).items()}
    one, two = (
        export_files(plan_for(model, near), model, target, tmp_path / name, approximate)[0]
        for name, approximate in (("a", False), ("b", True))
    )
    assert not one.changes and not two.changes and one.schemes == two.schemes == near
    assert one.path.read_bytes() == two.path.read_bytes()


def test_each_component_has_its_file(tmp_path: Path) -> None:
    both = tiny_model("unet", "text_encoder")
    plan = plan_for(both, dict.fromkeys(both.layers, "keep"))
    exports = export_files(plan, both, TARGETS["sdnq"], tmp_path / "c.json", approximate=False)
    assert [(e.component, e.path.name) for e in exports] == [
        ("unet", "c-unet.json"), ("text_encoder", "c-text_encoder.json")
    ]  # fmt: skip
    for export in exports:
        named = json.loads(export.path.read_text())["modules_to_not_convert"]
        assert {f"{export.component}.{name.removesuffix('.weight')}" for name in named} == set(export.schemes)
    assert sum(len(export.schemes) for export in exports) == len(both.layers)


@pytest.mark.parametrize("target", ALL)
def test_a_component_that_is_a_layer_is_told_and_not_named(target: Target, tmp_path: Path) -> None:
    layers = {"proj": layer(512, 256, address="proj"), "unet.a": layer(512, 256, address="unet.a")}
    model = Model(layers, ("spare",), "0" * 64)
    plan = plan_for(model, dict.fromkeys(layers, "w8g32a16"))
    first, second = export_files(plan, model, target, tmp_path / "x.json", approximate=True)
    assert dict(first.schemes) == {"proj": "keep"} and [c.layer for c in first.changes] == ["proj"]
    assert dict(second.schemes) == {"unet.a": "w8g32a16"} and not second.changes
    assert "weight" not in first.path.read_text().replace("weights_dtype", "")


def test_another_model_s_plan_is_refused(plan: Plan, model: Model, tmp_path: Path) -> None:
    part = dict(list(model.layers.items())[1:])
    with pytest.raises(PlanError, match="1 of 41 layers"):
        export_files(plan, dataclasses.replace(model, layers=part), TARGETS["sdnq"], tmp_path / "x", True)
    with pytest.raises(PlanError, match="another shape"):
        export_files(plan, dataclasses.replace(model, architecture="1" * 64), TARGETS["sdnq"], tmp_path / "x", True)


# --- the verb


@pytest.fixture
def saved(finished: Path, tmp_path: Path) -> Path:
    bitplan.solve(finished, tmp_path / "p.plan.yaml", uniform="w8a8")
    return tmp_path / "p.plan.yaml"


def test_shapes_come_from_the_profile_or_the_pipeline(
    saved: Path, finished: Path, tiny_folder: Path, tmp_path: Path, command_line: Callable[..., Result]
) -> None:
    for name, more in (("a", ()), ("b", ("--model", finished)), ("c", ("--model", tiny_folder))):
        done = command_line("export", saved, "--to", "modelopt", "--out", tmp_path / name, *more)
        assert done.exit_code == 0, done.output
        assert "modelopt for unet" in done.stdout and "changed" not in done.stdout
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()
    exports = bitplan.export(saved, "modelopt", tmp_path / "d", model=finished)
    (export,) = exports
    assert str(exports) == f"{exports.size}\n{export}"
    assert exports.to_json() == {"files": [export.to_json()], "bytes": exports.size.to_json()}
    assert export.path.read_bytes() == (tmp_path / "a").read_bytes()
    assert "w8a8" in set(export.schemes.values())


def test_a_pipeline_also_tells_what_the_plan_leaves_alone(tiny_folder: Path) -> None:
    parts = tiny_model("text_encoder")
    planned = dict(list(mixed(parts.layers).items())[1:])
    plan = plan_for(parts, planned, name=str(tiny_folder))
    read = read_model(plan)
    left = next(iter(parts.layers))
    assert left in read.unplanned and any("embedding" in name for name in read.unplanned)
    assert set(read.layers) == set(planned) and not set(read.layers) & set(read.unplanned)


def test_approximating_is_an_option_of_the_command(
    saved: Path, finished: Path, tmp_path: Path, command_line: Callable[..., Result]
) -> None:
    common = ("export", saved, "--to", "torchao", "--out", tmp_path / "t.json", "--model", finished)
    assert command_line(*common).exit_code == BAD_INPUT and not (tmp_path / "t.json").exists()
    done = command_line(*common, "--approximate")
    assert done.exit_code == 0 and re.search(r"\| w8a8 +\| keep +\| \d+ ", done.stdout)


def test_bad_input_is_one_line(
    saved: Path, finished: Path, tmp_path: Path, plan: Plan, command_line: Callable[..., Result]
) -> None:
    other = tmp_path / "other.plan.yaml"
    save_plan(plan_for(Model(tiny_model().layers, (), "2" * 64), plan.schemes), other)
    text = tmp_path / "text.profile"
    text.write_text("no profile")
    good = {"plan": saved, "to": "modelopt", "out": tmp_path / "new", "model": finished}
    spoilt: list[tuple[dict[str, object], str]] = [
        ({"to": "torch-ao"}, "did you mean 'torchao'"), ({"to": ""}, "there is no target"),
        ({"out": tmp_path / "none" / "x"}, "does not exist"), ({"out": tmp_path}, "is a folder, and"),
        ({"out": saved / "x"}, "does not exist"), ({"plan": tmp_path / "none.yaml"}, "cannot read the plan"),
        ({"plan": other}, "another shape"), ({"model": tmp_path / "none"}, "there is no pipeline folder"),
        ({"model": text}, "text.profile"), ({"to": "gguf-recipe"}, "cannot express"),
    ]  # fmt: skip
    before = sorted(path.name for path in tmp_path.iterdir())
    for change, words in spoilt:
        given = good | change
        done = command_line("export", given["plan"], *(x for k in ("to", "out", "model") for x in (f"--{k}", given[k])))
        assert (done.exit_code, done.stdout) == (BAD_INPUT, ""), change
        assert words in done.stderr and done.stderr.startswith("bitplan: ") and done.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_an_imported_profile_knows_no_shapes(
    saved: Path, profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bitplan.planner.profiles.profile import Profile

    header = Profile.header
    monkeypatch.setattr(Profile, "header", lambda self: header(self) | {"source": {"format": "mixdq"}})
    with pytest.raises(UserError, match="does not hold the kinds"):
        bitplan.export(saved, "modelopt", tmp_path / "x", model=profile)


# --- the page


def test_the_table_of_the_page_is_true() -> None:
    text = (Path(__file__).parents[3] / "docs" / "export.md").read_text()
    rows = [[cell.strip(" `") for cell in line.strip("|\n").split("|")] for line in text.splitlines() if "|" in line]
    start = next(i for i, row in enumerate(rows) if row[0] == "scheme")
    names, table = rows[start][1:], [row for row in rows[start + 2 :] if row[0] in EXAMPLES]
    assert names == list(TARGETS) and [row[0] for row in table] == list(EXAMPLES)
    kinds = {"linear": LAYERS["linear"], "conv": LAYERS["conv"]}
    for scheme, *cells in table:
        for name, cell in zip(names, cells, strict=True):
            able = [kind for kind, one in kinds.items() if why(TARGETS[name], parse_scheme(scheme), one) is None]
            assert cell == (", ".join(able) or "-"), (scheme, name)
