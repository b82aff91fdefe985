"""Which words of a verb have no effect beside others: one table. A verb that is given such words refuses them.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bitplan.planner.choice.ranking import JOINT
from bitplan.planner.choice.request import LEXICOGRAPHIC
from bitplan.planner.errors import UserError
from bitplan.planner.verbs.parameters import parameter_of

Values = Mapping[str, Any]  # word -> value, defaults included


@dataclass(frozen=True)
class Idle:
    """Words that have no effect in some calls of a verb.

    Attributes:
        words: the words.
        when: these calls, in words that follow `has no effect`.
        holds: whether a call is one of them.
    """

    words: tuple[str, ...]
    when: str
    holds: Callable[[Values], bool]


def _without(word: str) -> Callable[[Values], bool]:
    return lambda values: not values[word]


def _given(*words: str) -> Callable[[Values], bool]:
    return lambda values: any(values[word] is not None and len(values[word]) > 0 for word in words)


_COUNT = Idle(("count",), "beside --prompts, which says how many there are", _given("prompts"))
_CLUSTER = Idle(("address", "workers"), "without --engine ray", lambda values: values["engine"] != "ray")
_SLACK = Idle(
    ("slack",), "without a lexicographic --objective", lambda values: not values["objective"].startswith(LEXICOGRAPHIC)
)
_SIZES = ("width", "height", "frames", "tokens", "batch")
_SEARCHED = ("time_limit", "gap", "solver", "backend", "worth", "distance")
IDLE: dict[str, tuple[Idle, ...]] = {
    "profile": (
        _COUNT, _CLUSTER, Idle(("around",), "without --time", _without("time")),
    ),
    "check": (_CLUSTER,),
    "cost": (Idle(_SIZES, "without --config", _without("config")),),
    "solve": (
        _SLACK, Idle(_SEARCHED, "with --uniform, which solves nothing", lambda values: bool(values["uniform"])),
        Idle(("distance",), "without --candidates 2 or more", lambda values: values["candidates"] < 2),
        Idle(("prompts", "clip"), "without --rerank PIPELINE", lambda values: values["rerank"] in (None, JOINT)),
    ),
    "sweep": (
        _SLACK, Idle(("pipeline", "prompts", "clip", "seed"), "without --images", _without("images")),
    ),
    "verify": (Idle(("time_limit", "backend"), "without --prove", _without("prove")),),
    "paint": (
        Idle(("prompts",), "beside --prompt", _given("prompt")),
        Idle(("count",), "beside --prompt and --prompts, which say how many there are", _given("prompt", "prompts")),
        Idle(("kernels", "allow_mismatch"), "without a plan", lambda values: values["plan"] is None),
    ),
    "evaluate": (_COUNT,),
    "inspect": (
        Idle(("schemes", "components", *_SIZES), "without --config", _without("config")),
        Idle(("profile",), "with --config", lambda values: values["config"] is not None),
    ),
}  # fmt: skip


def check_combination(verb: str, values: Values, defaults: Values) -> None:
    """Raises UserError for a word that is given and has no effect beside the others.

    values: word -> value, defaults included; defaults: word -> default, of the words that have one.
    """
    for rule in IDLE.get(verb, ()):
        given = [word for word in rule.words if word in defaults and not _same(values[word], defaults[word])]
        if given and rule.holds(values):
            row = parameter_of(verb, given[0])
            name = f"--{row.flag or given[0].replace('_', '-')}"
            raise UserError(f"{name} has no effect {rule.when}; leave it out")


def _same(value: Any, default: Any) -> bool:
    """Whether a value is the default, also where an empty list or None stands for it."""
    if value is None or (isinstance(value, (list, tuple, dict)) and not value):
        return True
    return type(value) is type(default) and bool(value == default)
