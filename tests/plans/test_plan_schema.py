"""Edits of a plan's data: each is refused in one short line that names its place."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from bitplan import inspect
from bitplan.plans.plan import PlanError, load_plan
from tests.plans.test_plan import EXAMPLE

DATA: dict[str, Any] = yaml.safe_load(EXAMPLE)
LAYER = "unet.mid_block.attentions.0.to_q"
LONG = "x" * 70_000


def edited(*path: Any, value: Any) -> dict[str, Any]:
    """A copy of the plan's data with the value at the path of keys; `...` as the value removes the key."""
    copy = inner = json.loads(json.dumps(DATA))
    for key in path[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return dict(copy)


def refuse(data: Any, folder: Path) -> str:
    (folder / "some.plan.yaml").write_text(yaml.safe_dump(data, sort_keys=False), "utf-8")
    with pytest.raises(PlanError) as caught:
        load_plan(folder / "some.plan.yaml")
    line = str(caught.value)
    assert line.isprintable() and len(line) < 500 + len(str(folder))
    return line.removeprefix(f"{folder / 'some.plan.yaml'}, ")


SHA = "is not a sha256 of 64 hexadecimal digits"
SHORT = "has 70000 characters, and "
EDITS: list[tuple[tuple[Any, ...], Any, str]] = [
    (("bitplan",), 0, "bitplan: 0 is not from 1"),
    (("bitplan",), 1.0, "bitplan: 1.0 is not an integer"),
    (("bitplan",), 10**4000, "has version 1000"),
    (("model",), [], "model: [] is not a mapping"),
    (("model", "name"), 7, "model.name: 7 is not text"),
    (("model", "name"), LONG, "model.name: 'xxx"),
    (("model", "dtype"), "float8", "model.dtype: 'float8' is not one of float32, bfloat16, float16"),
    (("model", "fingerprint"), "0" * 63, SHA),
    (("model", "architecture"), "G" * 64, SHA),
    (("model", "components"), [], "model.components: it has 0 entries, and 1 to"),
    (("model", "components"), "unet", "model.components: 'unet' is not a list"),
    (("model", "nam"), "x", "model: unknown key 'nam'; did you mean 'name'"),
    (("schemes",), {}, "schemes: it has 0 entries, and at least 1 are needed"),
    (("schemes", LAYER), None, f"schemes.{LAYER}: None is not text"),
    (("schemes", LAYER), LONG, SHORT),
    (("schemes", LONG), "keep", SHORT),
    (("simulated",), None, "simulated: None is not a list"),
    (("simulated", 0), [], "simulated.0: [] is not text"),
    (("calibration", "prompts"), 0, "calibration.prompts: 0 is not from 1"),
    (("calibration", "prompts"), True, "calibration.prompts: True is not an integer"),
    (("calibration", "prompts_sha256"), LONG, SHORT),
    (("calibration", "steps"), 2.5, "calibration.steps: 2.5 is not an integer"),
    (("calibration", "guidance"), "4", "calibration.guidance: '4' is not a number"),
    (("calibration", "seed"), 2**65, "calibration.seed: 36893488147419103232 is not from"),
    (("calibration", "options"), [1], "calibration.options: [1] is not a mapping"),
    (("calibration", "options"), {"a": {"b": LONG}}, "calibration.options.a.b: 'xxx"),
    (("calibration", "metrics"), [None], "calibration.metrics.0: None is not text"),
    (("calibration", "ranges", LAYER, "tensor"), -1, "tensor: -1 is not finite and at least 0"),
    (("calibration", "ranges", LAYER, "first"), float("inf"), "first: inf is not finite"),
    (("calibration", "ranges", LAYER, "tensor"), ..., f"calibration.ranges.{LAYER}: 'tensor' is missing"),
    (("calibration", "ranges", LAYER, "rest"), 1, f"calibration.ranges.{LAYER}: unknown key 'rest'"),
    (("budgets", "bytes"), float("nan"), "budgets.bytes: nan is not finite"),
    (("budgets", "bytes"), 10**400, "budgets.bytes: 1000"),
    (("budgets", LONG), 1, SHORT),
    (("predictions", "total"), 7, "predictions.total: 7 is not a mapping"),
    (("predictions", "blocks", "unet.mid_block"), 7, "predictions.blocks.unet.mid_block: 7 is not a mapping"),
    (("predictions", "full", "unet.mid_block", "ms"), "3", "predictions.full.unet.mid_block.ms: '3' is not a number"),
    (("predictions", "part"), {}, "predictions: unknown key 'part'"),
    (("solver", "status"), "perfect", "solver.status: 'perfect' is not one of optimal, feasible, uniform"),
    (("solver", "status"), ..., "solver: 'status' is missing"),
    (("solver", "objective"), True, "solver.objective: True is not a number"),
    (("solver", "stopped"), LONG, SHORT),
    (("solver", "prices", "bytes"), -1e-9, "solver.prices.bytes: -1e-09 is not finite and at least 0"),
    (("solver", "worth", "bytes"), None, "solver.worth.bytes: None is not a number"),
    (("solver", "weights"), [], "solver.weights: [] is not a mapping"),
    (("solver", "pins", "unet.conv_in"), 8, "solver.pins.unet.conv_in: 8 is not text"),
    (("solver", "confidence"), 1.0, "solver.confidence: 1.0 is not from 0.5 to 1"),
    (("groups",), [{"members": ["a", "a"], "transforms": ["+x"]}], "groups.0.members: 'a' is listed twice"),
    (("groups",), [{"members": ["a"], "transforms": ["+x"]}], "groups.0.members: it has 1 entries, and 2 to"),
    (("groups",), [{"members": ["a", "b"]}], "groups.0: 'transforms' is missing"),
    (("parameters",), {"file": "../P.plan.safetensors", "sha256": "0" * 64}, "is not the name of a file"),
    (("parameters",), {"file": "P.plan.safetensors", "sha256": 0}, "parameters.sha256: 0 is not text"),
    ((LONG,), 1, "the top: "),
]


@pytest.mark.parametrize(("path", "value", "words"), EDITS, ids=[f"{'.'.join(map(str, path))[:50]}-{n}"
                                                                 for n, (path, _, _) in enumerate(EDITS)])  # fmt: skip
def test_an_edit_is_refused_where_it_is(path: tuple[Any, ...], value: Any, words: str, tmp_path: Path) -> None:
    assert words in refuse(edited(*path, value=value), tmp_path)


@pytest.mark.parametrize("text", [f"{EXAMPLE}x: !{LONG} 1\n", f"{LONG}: 1\n{LONG}: 1\n", f"bitplan: *{LONG}\n"])
def test_what_a_parser_says_is_shortened(text: str, tmp_path: Path) -> None:
    (tmp_path / "some.plan.yaml").write_text(text, "utf-8")
    with pytest.raises(PlanError) as caught:
        load_plan(tmp_path / "some.plan.yaml")
    assert len(str(caught.value)) < 500 + len(str(tmp_path)) and str(caught.value).isprintable()


NAMES = [("budgets", "\x1b[2K"), ("schemes", "\u202ea"), ("solver", "stopped"), ("solver", "backend"),
         ("predictions", "blocks", "\x1b")]  # fmt: skip


@pytest.mark.parametrize("path", NAMES, ids=["budgets", "schemes", "stopped", "backend", "blocks"])
def test_names_hold_no_control_characters(path: tuple[str, ...], tmp_path: Path) -> None:
    value: Any = {"schemes": "keep", "solver": "\x1b[2J", "budgets": 1, "predictions": {}}[path[0]]
    assert "holds control characters" in refuse(edited(*path, value=value), tmp_path)


def test_the_name_of_the_model_is_printed_with_escapes(tmp_path: Path) -> None:
    path = tmp_path / "some.plan.yaml"
    path.write_text(EXAMPLE.replace("name: scenes", r'name: "a\e[2Jb\u202e"'), "utf-8")
    assert str(load_plan(path)).startswith(r"plan for a\x1b[2Jb\u202e, 4 layers")
    assert str(inspect(path)).startswith(r"plan for a\x1b[2Jb\u202e (4 layers, ")


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    inner = [each for key, value in items for each in places(value, (*path, key))]
    return inner + ([path] if path else [])


def test_random_edits_are_refused_or_can_be_shown(tmp_path: Path) -> None:
    dice, every, accepted = random.Random(5), places(DATA), 0
    path = tmp_path / "some.plan.yaml"
    for _ in range(150):
        value = dice.choice([None, -1, 0, 1.5, 1e308, 10**30, "", "x", "\x1b[2J", [], {}, True, [0], LONG, ...])
        path.write_text(yaml.safe_dump(edited(*dice.choice(every), value=value), sort_keys=False), "utf-8")
        try:
            plan = load_plan(path)
        except PlanError as error:
            assert str(error).isprintable() and len(str(error)) < 500 + len(str(tmp_path))
            continue
        accepted += 1
        assert str(plan).isprintable()
    assert accepted > 10
