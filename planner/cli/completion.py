"""Completes names of schemes, metrics, columns, roles and layers after <TAB>, without loading torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

import click
from click.shell_completion import BashComplete, add_completion_class, get_completion_class, split_arg_string

from bitplan.planner.cli.output import Command

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_BITPLAN_COMPLETE"  # the environment variable that click reads, by the name of the command
Complete = Callable[[click.Context, click.Parameter, str], list[str]]


class Bash(BashComplete):
    """Bash splits words at `:` and `=`, which `role:in` and `nsr=w8a8` contain. So this class reads the line as it was
    typed, and returns only the part of each completion after the last of these characters."""

    source_template = BashComplete.source_template.replace(
        "COMP_CWORD=$COMP_CWORD", 'COMP_CWORD=$COMP_CWORD COMP_LINE="${COMP_LINE:0:$COMP_POINT}"'
    ).replace("COMPREPLY+=($value)", "COMPREPLY+=($value)\n            [[ $value == *[=:] ]] && compopt -o nospace")

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ["COMP_LINE"]
        words = split_arg_string(line)
        return (words[1:], "") if line[-1:].isspace() else (words[1:-1], words[-1])

    def format_completion(self, item: Any) -> str:
        word = self.get_completion_args()[1]
        typed = word.partition("=")[2] if word.startswith("--") else word
        before = max(typed.rfind(":"), typed.rfind("=")) + 1
        return f"{item.type},{item.value[before:] if item.value.startswith(typed[:before]) else item.value}"


add_completion_class(Bash)


def names_of(members: Iterable[Any]) -> list[str]:
    """The names of the members of a family's table."""
    return [str(getattr(each, "name", each)) for each in members]


def members(module: str, table: str) -> Complete:
    """Complete the names in a family's table, which is imported only then."""

    def complete(ctx: click.Context, _: click.Parameter, typed: str) -> list[str]:
        return [name for name in names_of(getattr(import_module(module), table)) if name.startswith(typed)]

    return complete


def schemes(ctx: click.Context, _: click.Parameter, typed: str) -> list[str]:
    """Complete comma-separated schemes: those of the profile on the line, else common ones."""
    return _listed(typed, _schemes(ctx))


def columns(ctx: click.Context, _: click.Parameter, typed: str) -> list[str]:
    """Complete columns that may vary: budgets and losses."""
    from bitplan.planner.choice.request import BUDGETS

    return [name for name in (*BUDGETS, *_losses(ctx)) if name.startswith(typed)]


def caps(ctx: click.Context, _: click.Parameter, typed: str) -> list[str]:
    """Complete COLUMN=SCHEME."""
    return _assigned(typed, _losses(ctx), ctx)


def objectives(ctx: click.Context, _: click.Parameter, typed: str) -> list[str]:
    """Complete families, columns, and lists of them."""
    from bitplan.planner.choice.request import LEXICOGRAPHIC

    if typed.startswith(LEXICOGRAPHIC):
        return [LEXICOGRAPHIC + each for each in _listed(typed.removeprefix(LEXICOGRAPHIC), _losses(ctx))]
    if "," in typed:
        return _listed(typed, [f"{name}=" for name in _losses(ctx)])
    return [name for name in ("both", *_losses(ctx), LEXICOGRAPHIC) if name.startswith(typed)]


def layers(ctx: click.Context, _: click.Parameter, typed: str) -> list[str]:
    """Complete the addresses of the profile on the line."""
    return [name for name in _of_profile(ctx, "layers") if name.startswith(typed)]


def places(ctx: click.Context, _: click.Parameter, typed: str) -> list[str]:
    """Complete layers and roles."""
    return [name for name in _places(ctx) if name.startswith(typed)]


def pins(ctx: click.Context, _: click.Parameter, typed: str) -> list[str]:
    """Complete LAYER=SCHEME and role:NAME=SCHEME."""
    return _assigned(typed, _places(ctx), ctx)


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that makes SHELL complete this command: `eval "$(bitplan completion bash)"` in ~/.bashrc."""
    root = ctx.find_root()
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(root.command, {}, "bitplan", VARIABLE).source())


def _assigned(typed: str, names: Iterable[str], ctx: click.Context) -> list[str]:
    name, equals, value = typed.partition("=")
    if not equals:
        return [f"{each}=" for each in names if each.startswith(name)]
    return [f"{name}={each}" for each in _schemes(ctx) if each.startswith(value)]


def _listed(typed: str, names: Iterable[str]) -> list[str]:
    before, comma, last = typed.rpartition(",")
    taken = before.split(",")
    return [f"{before}{comma}{name}" for name in names if name.startswith(last) and name not in taken]


def _places(ctx: click.Context) -> list[str]:
    from bitplan.planner.graph.layers import ROLES

    return [*(f"role:{name}" for name in ROLES), *_of_profile(ctx, "layers")]


def _schemes(ctx: click.Context) -> list[str]:
    from bitplan.planner.verbs.parameters import DEFAULT_SCHEMES
    from bitplan.plans.scheme import examples

    return [*_of_profile(ctx, "schemes")] or list(dict.fromkeys((*DEFAULT_SCHEMES, *examples())))


def _losses(ctx: click.Context) -> list[str]:
    from bitplan.planner.verbs.parameters import LOSSES
    from bitplan.sensitivity.table import FAMILIES

    return [*FAMILIES, *(_of_profile(ctx, "families") or LOSSES)]


def _of_profile(ctx: click.Context, what: str) -> list[str]:
    """Names that the profile on the line holds; none where it cannot be read, since completion never fails."""
    path = ctx.params.get("profile") or _argument(ctx, "profile")
    if path is None:
        return []
    from bitplan.planner.profiles.profile import open_profile

    try:
        with open_profile(path) as store:
            return list(getattr(store, what)())
    except Exception:  # whatever a damaged file causes: a shell shows no errors while it completes
        return []


def _argument(ctx: click.Context, name: str) -> str | None:
    """An argument of the line whose last option has no value yet: click then stops parsing."""
    names = [parameter.name for parameter in ctx.command.params if isinstance(parameter, click.Argument)]
    place = names.index(name) if name in names else len(ctx.args)
    return ctx.args[place] if place < len(ctx.args) else None
