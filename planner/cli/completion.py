"""What the shell offers after <TAB>: names of schemes, metrics, columns, roles and layers, without loading torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

import click
from click.shell_completion import BashComplete, add_completion_class, get_completion_class, split_arg_string

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_BITPLAN_COMPLETE"  # click looks for it, by the name of the command
LOSSES = ("nsr", "dssim", "clip_drop", "embed_drift", "output_nsr", "spectral", "lpips", "pixcorr", "flicker")
FAMILIES = ("quality", "alignment")
METRICS = (*LOSSES, "frechet")  # whose loss is of the whole set, and of no layer
BUDGETS = ("memory", "latency", "bits")
Complete = Callable[[click.Context, click.Parameter, str], list[str]]


class Bash(BashComplete):
    """Bash divides words at `:` and `=`, which `role:in` and `nsr=w8a8` hold. So the line is read as it was typed, and
    of what is offered the part after the last of these is given back."""

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


def offer(*names: str) -> Complete:
    """These names."""
    return lambda ctx, _, typed: [name for name in names if name.startswith(typed)]


def members(module: str, table: str) -> Complete:
    """The names in a family's table, which is imported when asked for."""

    def complete(ctx: click.Context, _: click.Parameter, typed: str) -> list[str]:
        its: Any = getattr(import_module(module), table)
        return [name for each in its if (name := str(getattr(each, "name", each))).startswith(typed)]

    return complete


def schemes(ctx: click.Context, _: click.Parameter, typed: str) -> list[str]:
    """Comma-separated schemes: the profile's own where one is given, else all that are commonly used."""
    return _listed(typed, _schemes(ctx))


def columns(ctx: click.Context, _: click.Parameter, typed: str) -> list[str]:
    """What may vary: budgets and losses."""
    return [name for name in (*BUDGETS, *_losses(ctx)) if name.startswith(typed)]


def caps(ctx: click.Context, _: click.Parameter, typed: str) -> list[str]:
    """COLUMN=SCHEME."""
    return _assigned(typed, _losses(ctx), ctx)


def objectives(ctx: click.Context, _: click.Parameter, typed: str) -> list[str]:
    """Families, columns, and lists of them."""
    first = "lexicographic:"
    if typed.startswith(first):
        return [first + each for each in _listed(typed.removeprefix(first), _losses(ctx))]
    if "," in typed:
        return _listed(typed, [f"{name}=" for name in _losses(ctx)])
    return [name for name in ("both", *_losses(ctx), first) if name.startswith(typed)]


def layers(ctx: click.Context, _: click.Parameter, typed: str) -> list[str]:
    """Addresses, where a profile is given."""
    return [name for name in _of_profile(ctx, "layers") if name.startswith(typed)]


def places(ctx: click.Context, _: click.Parameter, typed: str) -> list[str]:
    """Layers and roles."""
    return [name for name in _places(ctx) if name.startswith(typed)]


def pins(ctx: click.Context, _: click.Parameter, typed: str) -> list[str]:
    """LAYER=SCHEME and role:NAME=SCHEME."""
    return _assigned(typed, _places(ctx), ctx)


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what makes SHELL complete this command: `eval "$(bitplan completion bash)"` in ~/.bashrc."""
    root = ctx.find_root()
    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(root.command, {}, "bitplan", VARIABLE).source())


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
    from bitplan.plans.scheme import EXAMPLES

    return [*_of_profile(ctx, "schemes")] or list(dict.fromkeys((*DEFAULT_SCHEMES, *EXAMPLES)))


def _losses(ctx: click.Context) -> list[str]:
    return [*FAMILIES, *(_of_profile(ctx, "families") or LOSSES)]


def _of_profile(ctx: click.Context, what: str) -> list[str]:
    """Names that the profile of the command line holds; none where it cannot be read: completion never complains."""
    path = ctx.params.get("profile") or _argument(ctx, "profile")
    if path is None:
        return []
    from bitplan.planner.profiles.profile import open_profile

    try:
        with open_profile(path) as store:
            return list(getattr(store, what)())
    except (ValueError, OSError):
        return []


def _argument(ctx: click.Context, name: str) -> str | None:
    """An argument of the line where an option lacks its value yet, at which click gives up parsing."""
    names = [parameter.name for parameter in ctx.command.params if isinstance(parameter, click.Argument)]
    place = names.index(name) if name in names else len(ctx.args)
    return ctx.args[place] if place < len(ctx.args) else None
