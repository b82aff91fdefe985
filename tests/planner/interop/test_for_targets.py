"""Plans made for a target: the menu holds what it can load, in its bytes, and the export is the plan."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

import bitplan
from bitplan.planner.choice.evidence import read_evidence
from bitplan.planner.errors import BAD_INPUT, UserError
from bitplan.planner.graph.layers import Layer, from_json
from bitplan.planner.page.asking import PageRequest
from bitplan.planner.page.painter import PaintOptions
from bitplan.planner.page.serve import state_of
from bitplan.planner.page.session import answer
from bitplan.planner.profiles.profile import open_profile
from bitplan.planner.targets import TARGETS
from bitplan.planner.targets.base import Target, why
from bitplan.planner.views.profile_view import cells_of
from bitplan.plans.geometry import Geometry
from bitplan.plans.plan import load_plan
from bitplan.plans.scheme import KEEP, parse_scheme
from tests import tiny
from tests.planner.support.for_targets import EVERY, READERS, TIED, stated, write_profile

ALL = [pytest.param(target, id=name) for name, target in TARGETS.items()]


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile with the default schemes and the menus of all targets."""
    return write_profile(tmp_path_factory.mktemp("targets") / "e.profile")


def loadable(profile: Path, target: Target) -> dict[str, list[str]]:
    """Layer -> the schemes of the profile that the target can load, by the target's own rules."""
    with open_profile(profile) as store:
        evidence = read_evidence(store)
        layers = from_json(store.graph()).by_address
    return {
        name: [one for one in schemes if why(target, parse_scheme(one), layers[name]) is None]
        for name, schemes in evidence.offered.items()
    }


@pytest.mark.parametrize("target", ALL)
def test_every_choice_that_is_left_in_is_written_without_loss(target: Target, every: Path, tmp_path: Path) -> None:
    choices = loadable(every, target)
    assert sum(map(len, choices.values())) > 2 * len(choices) and all("keep" in own for own in choices.values())
    for turn in range(max(map(len, choices.values()))):
        wanted = {name: own[turn % len(own)] for name, own in choices.items()}
        bitplan.solve(every, tmp_path / "p.yaml", target=target.name, pins=wanted, kernels="fake")
        (file,) = bitplan.export(tmp_path / "p.yaml", target.name, tmp_path / "x", model=every)
        assert dict(file.schemes) == wanted and not file.changes
        paths = {name: name.removeprefix("unet.") for name in wanted}
        read = READERS[target.name](file.path.read_text(), list(paths.values()))
        assert {name: read[path] for name, path in paths.items()} == {
            name: stated(target.name, scheme) for name, scheme in wanted.items()
        }


@pytest.mark.parametrize("target", ALL)
def test_every_choice_that_is_ruled_out_is_refused_by_the_export(target: Target, every: Path, tmp_path: Path) -> None:
    choices = loadable(every, target)
    with open_profile(every) as store:
        restricted, whole = read_evidence(store, target=target.name), read_evidence(store)
    assert {name: list(own) for name, own in restricted.offered.items()} == choices
    assert restricted.ruled_out.keys() == {(n, s) for n, own in whole.offered.items() for s in own} - {
        (n, s) for n, own in choices.items() for s in own
    }
    for name, scheme in list(restricted.ruled_out)[:: max(1, len(restricted.ruled_out) // 6)]:
        if name not in TIED:
            bitplan.solve(
                every, tmp_path / "p.yaml", kernels="fake", pins=dict.fromkeys(choices, "keep") | {name: scheme}
            )
            with pytest.raises(UserError, match="cannot express 1 of 8 layers: 1, the first") as caught:
                bitplan.export(tmp_path / "p.yaml", target.name, tmp_path / "x", model=every)
            said = str(caught.value)
            assert restricted.ruled_out[name, scheme] in said and f"--target {target.name}" in said


@pytest.mark.parametrize("share", [0.1, 0.35, 0.8])
@pytest.mark.parametrize("target", ALL)
def test_the_plan_is_the_optimum_of_the_restricted_menu(
    target: Target, share: float, every: Path, tmp_path: Path
) -> None:
    with open_profile(every) as store:
        evidence = read_evidence(store, target=target.name)
        losses = {(m.layer, m.scheme): m.mean for m in store.measurements()}
    options = [[(name,), own] for name, own in loadable(every, target).items() if name not in TIED]
    options.append([TIED, loadable(every, target)[TIED[0]]])
    least: dict[int, float] = {0: 0.0}  # bytes -> the least loss, of all choices of the layers so far
    for names, schemes in options:
        found: dict[int, float] = {}
        for size, loss in least.items():
            for scheme in schemes:
                counted = names[:1] if scheme == "keep" else names
                total = size + sum(evidence.size[name, scheme] for name in counted)
                lost = loss + sum(losses.get((name, scheme), 0.0) for name in names)
                found[total] = min(lost, found.get(total, lost))
        least = found
    limit = int(min(least) + share * (max(least) - min(least)))
    best = min(loss for size, loss in least.items() if size <= limit)
    plan = bitplan.solve(
        every, tmp_path / "p.yaml", target=target.name, memory=f"{limit}B", objective="nsr", kernels="fake"
    )
    assert plan.predictions["total"]["nsr"] == best and plan.predictions["total"]["bytes"] <= limit
    assert plan.solver["status"] == "optimal" and plan.solver["target"] == target.name
    assert not bitplan.verify(tmp_path / "p.yaml", every, prove=True).failures


@pytest.mark.parametrize("target", ALL)
def test_the_exported_bytes_are_those_of_the_plan(target: Target, every: Path, tmp_path: Path) -> None:
    plan = bitplan.solve(
        every, tmp_path / "p.yaml", target=target.name, memory="85%", objective="bytes=1", kernels="fake"
    )
    done = bitplan.export(tmp_path / "p.yaml", target.name, tmp_path / "x", model=every)
    assert done.size.planned == plan.predictions["total"]["bytes"] and done.size.budget == plan.budgets["bytes"]
    if target.stored is None:
        assert done.size.within is None and "simulates" in str(done)
        return
    assert done.size.written == done.size.planned and done.size.within is True
    assert str(done).startswith(f"{target.name} holds the planned layers in {done.size.written:,} bytes")
    assert done.to_json()["bytes"]["within_budget"] is True


def test_an_approximation_beyond_the_budget_says_so_first(
    every: Path, tmp_path: Path, command_line: Callable[..., Result]
) -> None:
    plan = bitplan.solve(every, tmp_path / "p.yaml", memory="14%")
    ask = ("export", tmp_path / "p.yaml", "--to", "torchao", "--approximate", "--out", tmp_path / "x", "--model", every)
    done = command_line(*ask)
    assert done.exit_code == 0, done.output
    first, *rest = done.stdout.splitlines()
    size = json.loads(command_line(*ask, "--json").stdout)["bytes"]
    assert size["written"] > size["budget"] == plan.budgets["bytes"] and size["within_budget"] is False
    assert first.startswith(f"OVER BUDGET: torchao holds the planned layers in {size['written']:,} bytes")
    assert f"{size['written'] - size['budget']:,} bytes" in first and f"{size['planned']:,} bytes" in first
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in rest if line.startswith("|")]
    assert rows[0] == ["from", "to", "layers", "bytes before", "bytes after", "because"]
    changed = rows[2:]
    (file,) = bitplan.export(tmp_path / "p.yaml", "torchao", tmp_path / "x", model=every, approximate=True)
    assert sum(int(row[2]) for row in changed) == len(file.changes) >= len(changed) > 0
    number = lambda text: int(text.replace(",", ""))  # noqa: E731
    after = sum(number(row[4]) for row in changed)
    assert after == sum(change.bytes_written for change in file.changes)
    assert sum(number(row[3]) for row in changed) == sum(change.bytes_planned or 0 for change in file.changes)
    assert size["written"] - after == sum(
        TARGETS["torchao"].holds(KEEP, shapes_of(every)[name], 4) for name, scheme in file.schemes.items()
        if name not in {change.layer for change in file.changes} and name != TIED[1]
    )  # fmt: skip


def shapes_of(profile: Path) -> dict:
    with open_profile(profile) as store:
        return from_json(store.graph()).by_address


HELD = {  # target -> (scheme, shape) -> bytes as torchao 0.18.0, sdnq 0.2.8 and gguf 0.19.0 hold the weight
    "torchao": {
        ("keep", (96, 256)): 49152, ("w8a8", (96, 256)): 25056, ("w8a16", (96, 256)): 25056,
        ("w8za16", (96, 256)): 24864, ("w8g64za16", (96, 256)): 25728, ("fp8a16", (96, 256)): 24960,
    },
    "sdnq": {
        ("keep", (96, 256)): 98304, ("w8a8", (96, 256)): 24960, ("w5za8", (96, 256)): 16128,
        ("w4g64za8", (96, 256)): 15360, ("w4g128a16", (30, 33)): 615, ("w8a8", (64, 128, 3, 3)): 73984,
        ("w8a16", (64, 128, 3, 3)): 76032, ("w4g64za8", (64, 128, 3, 3)): 46080, ("w3a16", (32, 4, 3, 3)): 1584,
    },
    "modelopt": {("w4a8", (96, 256)): 98304},
    "gguf-recipe": {
        ("keep", (512, 256)): 262144, ("w8g32a8", (512, 256)): 139264, ("w4g32zma8", (512, 256)): 73728,
        ("w5g32za8", (64, 32)): 1536, ("w2g32zma8", (512, 256)): 43008,
    },
}  # fmt: skip


@pytest.mark.parametrize("target", ALL)
def test_bytes_are_those_that_the_tools_hold(target: Target) -> None:
    for (scheme, shape), size in HELD[target.name].items():
        kind = "linear" if len(shape) == 2 else "conv2d"
        one = Layer("unet.a", (), kind, shape, False, 1, Geometry.plain(2) if len(shape) > 2 else None, ())
        assert target.holds(parse_scheme(scheme), one, 4) == size, scheme


def test_the_menus_of_the_page_are_true() -> None:
    text = (Path(__file__).parents[3] / "docs" / "export.md").read_text()
    rows = dict(re.findall(r"^\| `([\w-]+)` \| (`[^|]*`) \|$", text, re.MULTILINE))
    assert {name: tuple(rows[name].strip("`").split("`, `")) for name in TARGETS} == {
        name: target.menu for name, target in TARGETS.items()
    }


# --- what is told of choices that are ruled out


def test_why_names_the_reason_of_each(every: Path, tmp_path: Path) -> None:
    bitplan.solve(every, tmp_path / "p.yaml", target="sdnq", memory="40%")
    found = bitplan.why(tmp_path / "p.yaml", every, "unet.wide")
    assert {each.candidate for each in found.alternatives}.isdisjoint(found.ruled_out)
    assert {each.candidate for each in found.alternatives} | found.ruled_out.keys() == set(EVERY)
    assert bitplan.why(tmp_path / "p.yaml", every, "unet.first").ruled_out.keys() >= {"w2g64za8"}  # not in the profile
    assert "sdnq cannot load" in str(found) and "not of least squares" in found.ruled_out["w4ma8"]
    assert found.to_json()["ruled_out"]["w4ma8"] == found.ruled_out["w4ma8"] and found.to_json()["target"] == "sdnq"
    odd = bitplan.why(tmp_path / "p.yaml", every, "unet.odd")
    assert "multiples of 16" in odd.ruled_out["w8a8"] and "w8a8" not in {each.candidate for each in odd.alternatives}


def test_what_a_plan_says_of_its_target(every: Path, tmp_path: Path) -> None:
    bitplan.solve(every, tmp_path / "p.yaml", target="gguf-recipe", memory="80%")
    plan = load_plan(tmp_path / "p.yaml")
    assert plan.solver["target"] == "gguf-recipe"
    shown = str(bitplan.inspect(tmp_path / "p.yaml", every))
    assert "target: gguf-recipe" in shown and "gguf-recipe can load" in str(bitplan.verify(tmp_path / "p.yaml", every))
    assert "target" not in bitplan.solve(every, tmp_path / "q.yaml", memory="40%").solver


def test_sweeps_are_for_a_target_too(every: Path, tmp_path: Path) -> None:
    view = bitplan.sweep(every, tmp_path / "run", points=3, target="torchao")
    choices = loadable(every, TARGETS["torchao"])
    assert {cell.layer: [o.scheme for o in cell.options] for cell in view.cells} == choices
    for file in (tmp_path / "run" / "plans").iterdir():
        assert load_plan(file).solver["target"] == "torchao"
        bitplan.export(file, "torchao", tmp_path / "x", model=every)
    other = bitplan.sweep(every, tmp_path / "run", points=3)  # another request, which does not continue that one
    assert [len(cell.options) for cell in other.cells] != [len(cell.options) for cell in view.cells]


def test_refusals_are_one_line(every: Path, tmp_path: Path, command_line: Callable[..., Result]) -> None:
    poor = write_profile(tmp_path / "poor.profile", ("w4ma8", "w3ma8"))
    said = {
        ("--target", "sdqn"): "did you mean 'sdnq'",
        ("--target", "sdnq", "--pin", "unet.wide=w4ma8"): "sdnq cannot load w4ma8 in unet.wide (takes weights int with",
        ("--target", "sdnq", "--uniform", "w4ma8"): "sdnq can load w4ma8 in no layer (takes weights int with",
    }
    for words, text in said.items():
        done = command_line("solve", every, *words, "--out", tmp_path / "p.yaml")
        assert done.exit_code == BAD_INPUT and text in done.stderr and not (tmp_path / "p.yaml").exists()
    done = command_line("solve", poor, "--target", "sdnq", "--out", tmp_path / "p.yaml")
    assert (
        done.exit_code == BAD_INPUT
        and "has w4ma8, w3ma8; profile with --target sdnq, which measures w8a8," in done.stderr
    )
    assert done.stderr.count("\n") == 1


def test_a_cap_may_name_a_scheme_that_the_target_cannot_load(every: Path, tmp_path: Path) -> None:
    free = bitplan.solve(every, tmp_path / "p.yaml", caps={"nsr": "w4ma8"})
    plan = bitplan.solve(every, tmp_path / "p.yaml", caps={"nsr": "w4ma8"}, target="sdnq")
    assert plan.budgets["nsr"] == free.budgets["nsr"] >= plan.predictions["total"]["nsr"]


def test_a_profile_for_a_target_holds_what_it_can_load(tiny_folder: Path, clip_folder: Path, tmp_path: Path) -> None:
    settings = tiny.SETTINGS | {"schemes": None}
    out = bitplan.profile(
        str(tiny_folder), tmp_path / "t.profile", target="torchao", checks=0, clip=str(clip_folder), **settings
    )
    with open_profile(out) as store:
        pairs = {(cost.layer, cost.scheme) for cost in store.costs()}
        assert store.measured() == {pair for pair in pairs if pair[1] != "keep"}
        assert {scheme for _, scheme in pairs} == {"keep", *TARGETS["torchao"].menu}
    assert pairs == {(name, one) for name, own in loadable(out, TARGETS["torchao"]).items() for one in own}
    plan = bitplan.solve(out, tmp_path / "p.yaml", target="torchao", memory="95%")
    done = bitplan.export(plan, "torchao", tmp_path / "x", model=out)
    assert not done.changes and done.size.within
    with pytest.raises(UserError, match="torchao cannot load w4ma8: it takes weights int with bits 8"):
        bitplan.profile(str(tiny_folder), tmp_path / "u.profile", target="torchao", schemes=("w8a8", "w4ma8"))
    with pytest.raises(UserError, match="did you mean 'torchao'"):
        bitplan.profile(str(tiny_folder), tmp_path / "u.profile", target="torch-ao")


def test_the_explorer_plans_for_a_target(every: Path, tmp_path: Path) -> None:
    state = state_of(every, tmp_path, PaintOptions(kernels="fake"), "sdnq")
    words = PageRequest(memory="60%")
    assert {cell.layer: [o.scheme for o in cell.options] for cell in cells_of(state.session.known)} == loadable(
        every, TARGETS["sdnq"]
    )
    saved = state.save(words, "p")
    assert "--target sdnq" in saved["command"] and load_plan(saved["path"]).solver["target"] == "sdnq"
    assert not bitplan.export(saved["path"], "sdnq", tmp_path / "x", model=every).changes
    found = answer(state.session, state.request(words), passing=False)
    assert found.variant.totals["bytes"] == load_plan(saved["path"]).predictions["total"]["bytes"]
