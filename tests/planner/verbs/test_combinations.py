"""Every option of every verb has an effect, or is refused in the combinations in which it has none."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

import bitplan
from bitplan.planner.errors import UserError
from bitplan.planner.verbs import COMMANDS, VERBS
from bitplan.planner.verbs.combinations import IDLE, check_combination
from bitplan.planner.verbs.parameters import parameter_of

EFFECTIVE = {  # verb -> options that have an effect beside all others, or permit something
    "profile": "prompts schemes components clip timesteps steps guidance seed method time engine part dtype "
    "call metrics offload_folder out estimate target variant",
    "merge": "costs",
    "cost": "config",
    "verify": "prove",
    "why": "time_limit gap backend",
    "check": "sample tolerance plan prompts clip engine seed out offload_folder trust variant",
    "solve": "memory latency bits caps objective pins kernels confidence uniform candidates rerank trust "
    "target variant",
    "sweep": "by points start stop spacing memory latency bits caps objective pins kernels confidence "
    "time_limit gap backend images trust target variant",
    "paint": "steps guidance seed call variant",
    "evaluate": "prompts kernels blocks allow_mismatch clip steps guidance seed call metrics offload_folder "
    "variant",
    "bench": "out pairs against compiled batch allow_mismatch guidance variant",
    "export": "model approximate variant",
    "inspect": "file config",
    "explore": "plans pipeline port open kernels steps guidance trust target variant",
}  # fmt: skip
ELSEWHERE = {"sweep": {"paint", "count"}}  # refused by `check_painted`
DECLARED = {"profile": {"probes": "For --method probes: ", "checks": "For --method probes: "}}  # in their help
OTHER = {int: 7, float: 7.5, str: "other", Path: "other", bool: True}  # values that are no default
IDLE_CALLS = {  # (verb, the rule's first word) -> a call in which the rule holds, and one in which it does not
    ("profile", "count"): ({"prompts": ["a cat"]}, {}),
    ("profile", "address"): ({}, {"engine": "ray"}),
    ("profile", "around"): ({}, {"time": "10m"}),
    ("check", "address"): ({}, {"engine": "ray"}),
    ("cost", "width"): ({}, {"config": "c.json"}),
    ("solve", "slack"): ({"objective": "quality"}, {"objective": "lexicographic:alignment,quality"}),
    ("solve", "time_limit"): ({"uniform": "w8a8"}, {"candidates": 2}),
    ("solve", "distance"): ({}, {"candidates": 2}),
    ("solve", "prompts"): ({"rerank": "joint"}, {"rerank": "scenes"}),
    ("sweep", "slack"): ({"objective": "quality"}, {"objective": "lexicographic:alignment,quality"}),
    ("sweep", "pipeline"): ({}, {"images": 4}),
    ("verify", "time_limit"): ({}, {"prove": True}),
    ("paint", "prompts"): ({"prompt": ["a cat"]}, {"prompt": []}),
    ("paint", "count"): ({"prompt": [], "prompts": "p.txt"}, {"prompt": []}),
    ("paint", "kernels"): ({"plan": None}, {"plan": "p.yaml"}),
    ("evaluate", "count"): ({"prompts": ["a cat"]}, {}),
    ("inspect", "schemes"): ({"file": "p"}, {"config": "c"}),
    ("inspect", "profile"): ({"config": "c"}, {"file": "p"}),
}
RULES = [(verb, rule) for verb, rules in IDLE.items() for rule in rules]


def defaults_of(verb: str) -> dict[str, Any]:
    parameters = inspect.signature(VERBS[verb].function).parameters
    return {name: each.default for name, each in parameters.items() if each.default is not each.empty}


@pytest.mark.parametrize("verb", [each.name for each in COMMANDS.values()])
def test_every_option_is_classed(verb: str) -> None:
    idle = {word for rule in IDLE.get(verb, ()) for word in rule.words}
    assert {*EFFECTIVE.get(verb, "").split(), *ELSEWHERE.get(verb, ()), *DECLARED.get(verb, ()), *idle} == set(
        defaults_of(verb)
    )
    assert not idle & set(EFFECTIVE.get(verb, "").split())
    assert all(parameter_of(verb, word).help.startswith(start) for word, start in DECLARED.get(verb, {}).items())


@pytest.mark.parametrize(("verb", "rule"), RULES, ids=[f"{verb} {rule.words[0]}" for verb, rule in RULES])
def test_an_option_without_effect_is_refused_and_accepted_where_it_has_one(verb: str, rule: Any) -> None:
    defaults = defaults_of(verb)
    idle, effective = IDLE_CALLS[verb, rule.words[0]]
    base = {"prompt": (), "plan": "p.yaml", **defaults}
    check_combination(verb, base | idle, defaults)
    for word in rule.words:
        row = parameter_of(verb, word)
        value = [OTHER[row.type]] if row.many or row.split else OTHER[row.type]
        with pytest.raises(
            UserError, match=f"^--{(row.flag or word).replace('_', '-')} has no effect .*; leave it out$"
        ):
            check_combination(verb, base | idle | {word: value}, defaults)
        try:
            check_combination(verb, base | effective | {word: value}, defaults)
        except UserError as error:
            pytest.fail(f"{verb} {word}: {error}")


def test_the_command_and_python_refuse_alike_before_anything_is_loaded(tmp_path: Path, command_line: Any) -> None:
    out, missing = tmp_path / "img.png", tmp_path / "missing.txt"
    done = command_line("apply", "scenes@12%", "nowhere", "--prompt", "a cat", "--prompts", missing, "--out", out)
    assert done.exit_code == 2 and "--prompts has no effect beside --prompt; leave it out" in done.stderr
    with pytest.raises(UserError, match="--slack has no effect without a lexicographic"):
        bitplan.solve(tmp_path / "none.profile", tmp_path / "p.plan.yaml", memory="50%", slack=0.1)
    done = command_line("verify", "scenes@12%", tmp_path / "none.profile", "--backend", "highs")
    assert done.exit_code == 2 and "--backend has no effect without --prove" in done.stderr
