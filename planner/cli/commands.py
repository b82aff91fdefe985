"""The command `bitplan`: one sub-command for each verb of `bitplan.planner.verbs`, and what it prints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import Any

import click

from bitplan.planner.cli.completion import completion
from bitplan.planner.cli.output import JSON, QUIET, Command, Printed, guarded, show
from bitplan.planner.cli.program import GuardedGroup
from bitplan.planner.errors import BAD_INPUT, NO, UserError
from bitplan.planner.extras import require
from bitplan.planner.interrupts import current
from bitplan.planner.texts import shell_command
from bitplan.planner.verbs import COMMANDS, Verb

MOST_THREADS = 4096
Words = Mapping[str, Any]  # the command line: word -> value


def _result(result: Any, words: Words) -> Printed:
    return Printed(result)


def _written(result: Any, words: Words) -> Printed:
    """A result that may also be in the file of --out."""
    return Printed(result, wrote=[words["out"]] if words["out"] else [])


def _profile(result: Any, words: Words, latency: bool = False) -> Printed:
    """A new profile: its text is what the verb returned, if that is a text, else what schemes gain or cost in time."""
    from bitplan.planner.cli.hints import after_profile
    from bitplan.planner.profiles.profile import open_profile
    from bitplan.planner.profiles.speeds import speeds_text
    from bitplan.planner.views.inspect import inspect_file

    if (out := words["out"]) is None:
        return Printed(result)
    with open_profile(out) as store:
        text = result if isinstance(result, str) else speeds_text(store)
        then = after_profile(store, out, words.get("part"), latency, words.get("target"))
    return Printed(lambda: inspect_file(out), text, wrote=[out], then=then)


def _inspect(result: Any, words: Words) -> Printed:
    return Printed(result, drawing=result.drawing if result.plan else None)


def _solve(result: Any, words: Words) -> Printed:
    from bitplan.planner.cli.hints import after_solve
    from bitplan.planner.profiles.profile import open_profile
    from bitplan.planner.views.inspect import inspect_plan

    out, inspected = words["out"], inspect_plan(result, words["profile"])
    with open_profile(words["profile"]) as store:
        then = after_solve(result, store.header(), out)
    wrote = list(dict.fromkeys((out, *current().files)))
    return Printed(inspected, drawing=inspected.drawing, wrote=wrote, then=then)


def _sweep(result: Any, words: Words) -> Printed:
    out = words["out"]
    return Printed(result, wrote=[out], then=shell_command("bitplan", "report", out, "--out", "report.html"))


def _verify(result: Any, words: Words) -> Printed:
    for failure in result.failures:
        click.echo(f"bitplan: {words['plan']}: {failure}", err=True)
    return Printed(result, "" if result.failures else None, code=BAD_INPUT if result.failures else 0)


def _check(result: Any, words: Words) -> Printed:
    return Printed(result, wrote=[words["out"]] if words["out"] else [], code=0 if result.holds else NO)


def _evaluate(result: Any, words: Words) -> Printed:
    return Printed(result, wrote=[words["out"] / name for name in result.files])


def _export(result: Any, words: Words) -> Printed:
    return Printed(result, wrote=[file.path for file in result])


PRINTED: dict[str, Callable[[Any, Words], Printed]] = {  # a verb -> what its command prints; others print by themselves
    "profile": _profile, "cost": partial(_profile, latency=True), "import_profile": _profile, "merge": _profile,
    "inspect": _inspect, "solve": _solve, "sweep": _sweep, "verify": _verify, "check": _check, "evaluate": _evaluate,
    "export": _export, "why": _result, "predict": _result, "doctor": _result, "bench": _written,
    "paint": lambda result, words: Printed(text="", wrote=result),
    "report": lambda result, words: Printed(text="", wrote=[result], then="open it in a browser"),
}  # fmt: skip


class VerbCommand(Command):
    """The command of one verb. Its options are built, and the verb's module is imported, when they are first needed."""

    def __init__(self, name: str, verb: Verb) -> None:
        super().__init__(name, callback=partial(_run, verb), help=verb.help)
        self.verb = verb
        del self.params  # an empty list, which would hide the property

    @cached_property
    def params(self) -> list[click.Parameter]:  # type: ignore[override]
        from bitplan.planner.cli.options import parameters_of

        return [*parameters_of(self.verb), *([JSON, QUIET] if self.verb.name in PRINTED else [])]


def _run(verb: Verb, /, as_json: bool = False, quiet: bool = False, **words: Any) -> None:
    with guarded(_doing(verb, words)):
        if verb.name in PRINTED:
            show(lambda: PRINTED[verb.name](_call(verb, words), words), as_json, quiet)
        else:
            _call(verb, words)


def _doing(verb: Verb, words: Words) -> str:
    """The verb and what it works on: the pipeline where one is on the line, else its first argument."""
    what = words.get("pipeline") or next((value for value in words.values() if value), "")
    several = what if isinstance(what, (tuple, list)) else (what,)
    return " ".join([verb.command or verb.name, *(str(one) for one in several)]).strip()


def _call(verb: Verb, words: Words) -> Any:
    from bitplan.planner.cli.options import values_of

    values = values_of(verb, words)
    threads = values.pop("threads", None)
    if not threads:
        return verb.function(**values)
    require("torch", f"{verb.command or verb.name} --threads")
    import torch

    if threads > MOST_THREADS:
        raise UserError(f"--threads {threads} is more than any machine has; give at most {MOST_THREADS}")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return verb.function(**values)
    finally:
        torch.set_num_threads(before)


@click.group(cls=GuardedGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="bitplan")
def main() -> None:
    """Plan, layer by layer, how to quantize a diffusion model: profile, solve, apply, evaluate."""


for _name, _verb in COMMANDS.items():
    main.add_command(VerbCommand(_name, _verb))
main.add_command(completion)
