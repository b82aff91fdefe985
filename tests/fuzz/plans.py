"""Plan files with edited values, tags, aliases and bytes, given to every command that reads a plan."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.fuzz.brute import stored, sums
from tests.fuzz.case import Case, command
from tests.fuzz.values import RAW, Random, mutated, spoilt
from tests.fuzz.world import copied, plan_data

BOMB = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi",
                                                                                           strict=True))  # fmt: skip
TRICKS = (
    BOMB, "!!python/object/apply:os.getcwd []\n", "? [a, b]\n: 1\n", "<<: {schemes: {}}\n", "--- 1\n--- 2\n",
    "bitplan: 0o1\n", "bitplan: 1_0\n", "schemes: !!set {a, b}\n", "schemes: !!omap [a: 1]\n", "%TAG ! tag:x,2000:\n",
    "x: 2001-01-01\n", "x: 1:30:00\n", "x: !!binary aGk=\n", "x: .inf\n", "x: 0x" + "f" * 9000 + "\n", "\t\n",
    "x: " + "1" * 9000 + "\n", "? " + "[" * 2000 + "\n", "x: !!timestamp nope\n", "x: !!int nope\n", "x: 1e400\n",
    "x: !!bool maybe\n", "x: 99999-99-99\n", "x: 2001-02-30\n", "x: =\n", "=: x\n", "<<: 1\n", "<<: [1]\n", "*a: 1\n",
)  # fmt: skip


def run(case: Case) -> None:
    """Spoils a copy of a plan, and gives it to commands."""
    random = case.random
    own = random.random() < 0.5  # the plan of the profile, or of the pipeline
    path = copied(case.world.plan if own else case.world.pipeline_plan, case.box.inputs)
    edits = random.choice((0, 1, 1, 1, 1, 2, 3))
    data = _spoil(case, path, edits)
    if not own:
        _apply(case, path, edits)
    inspected = command(case, "inspect", path, *random.choice(((), ("--json",))))
    if inspected.accepted:
        accepted(case, path)
    elif not edits:
        case.find("a good plan is refused", inspected.err)
    if own or random.random() < 0.2:
        profile = copied(case.world.profile, case.box.inputs)
        _verify(case, path, profile)
        random.choice(_COMMANDS)(case, path, profile)
    _ = data


def _spoil(case: Case, path: Path, edits: int) -> Any:
    random = case.random
    data = plan_data(path)
    if not edits:
        return data
    kind = random.random()
    if kind < 0.15:
        path.write_bytes(spoilt(path.read_bytes(), random))
        case.edits.append("bytes")
    elif kind < 0.3:
        trick = random.choice(TRICKS)
        text = path.read_text()
        path.write_text(random.choice((trick, trick + text, text + trick, _inside(text, trick, random))))
        case.edits.append(trick[:80])
    else:
        data = mutated(data, random, edits)
        path.write_text(yaml_text(data).replace("@box", str(case.box.root)), "utf-8", "surrogatepass")
    return data


def _inside(text: str, trick: str, random: Random) -> str:
    """The text with the trick as one of its values."""
    lines = text.splitlines()
    at = random.randrange(len(lines))
    key, colon, _ = lines[at].partition(":")
    lines[at] = f"{key}{colon or ':'} {trick.partition(': ')[2] or trick}"
    return "\n".join(lines)


def yaml_text(data: Any) -> str:
    try:
        text = str(yaml.dump(data, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False))
    except UnicodeEncodeError:  # libyaml holds no surrogates
        text = str(yaml.dump(data, Dumper=yaml.SafeDumper, sort_keys=False))
    for name, raw in RAW.items():
        text = text.replace(f"'{name}'", raw)
    return text


def accepted(case: Case, path: Path) -> None:
    """A plan that is read is written again and read as the same, and holds finite numbers only."""
    from bitplan.plans.plan import load_plan, save_plan

    plan = load_plan(path)
    again = case.box.out / "again.plan.yaml"
    try:
        save_plan(plan, again)
    except ValueError as refused:
        case.find("a plan that is read cannot be written", (refused, case.edits))
        return
    if load_plan(again) != plan:
        case.find("a plan that is read is another when written and read again", case.edits)
    for number in _numbers(plan.to_json()):
        if isinstance(number, float) and not math.isfinite(number):
            case.find("a plan with a number that is not finite", (number, case.edits))


def _numbers(data: Any) -> Iterator[Any]:
    if isinstance(data, dict):
        for value in data.values():
            yield from _numbers(value)
    elif isinstance(data, (list, tuple)):
        for value in data:
            yield from _numbers(value)
    elif isinstance(data, (int, float)):
        yield data


def _verify(case: Case, path: Path, profile: Path) -> None:
    """A plan that `verify` confirms has the bytes that it says, within its budget."""
    if not command(case, "verify", path, profile).accepted:
        return
    plan = plan_data(path)
    size, _ = sums(stored(profile, "nsr"), plan["schemes"])
    limit = plan["budgets"].get("bytes", math.inf)
    if size > limit or plan["predictions"].get("total", {}).get("bytes", size) != size:
        case.find("verify confirms a plan whose bytes are wrong", (size, limit, case.edits))


def _apply(case: Case, path: Path, edits: int) -> None:
    more = case.random.choice(((), ("--allow-mismatch",), ("--kernels", "fake"), ("--allow-mismatch", "--kernels",
                               "fake")))  # fmt: skip
    pipeline = copied(case.world.pipeline, case.box.inputs)
    out = case.box.out / "x.png"
    applied = command(case, "apply", path, pipeline, "--prompts", _conditions(case), "--steps", 1, "--out", out, *more)
    if applied.accepted != any(case.box.out.glob("x*")):
        case.find("exit code 0 without a picture, or the reverse", (applied.err, case.edits))
    if not edits and not applied.accepted:
        case.find("a good plan is not applied", applied.err)


def _conditions(case: Case) -> Path:
    path = case.box.inputs / "prompts.yaml"
    path.write_text("- {}\n")
    return path


def _why(case: Case, path: Path, profile: Path) -> None:
    command(case, "why", path, profile, case.random.choice(("unet.conv_in", "unet.conv_out", "unet.nowhere")))


def _export(case: Case, path: Path, profile: Path) -> None:
    to = case.random.choice(("sdnq", "torchao", "gguf-recipe", "modelopt"))
    model = case.random.choice(((), ("--model", profile), ("--model", profile)))
    command(case, "export", path, "--to", to, *model, *case.random.choice(((), ("--approximate",))), "--out",
            case.box.out / "e.json")  # fmt: skip


def _roles(case: Case, path: Path, profile: Path) -> None:
    command(case, "inspect", path, "--profile", profile)


def _predict(case: Case, path: Path, profile: Path) -> None:
    command(case, "predict", path, profile)


_COMMANDS = (_why, _export, _roles, _predict)
