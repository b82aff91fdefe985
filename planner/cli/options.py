"""Builds the arguments and options of a command from its verb's signature and `bitplan.planner.verbs.parameters`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from bitplan.planner.cli import completion
from bitplan.planner.units import parse_number
from bitplan.planner.verbs import Verb
from bitplan.planner.verbs.parameters import Parameter, parameter_of
from bitplan.planner.verbs.texts import joined_pins


class Decimals(click.types.FloatParamType):
    """A number that a float holds without rounding it to nothing."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if isinstance(value, str):
            parse_number(value, param.opts[0] if param else "the number")
        return number


class Commas(click.ParamType):
    """A comma-separated list, as a tuple."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        names = tuple(filter(None, (name.strip() for name in value.split(","))))
        if not names:
            self.fail(f"{value!r} has no names; give some, or leave the option out", param, ctx)
        return names


def parameters_of(verb: Verb) -> Iterator[click.Parameter]:
    """The arguments and options of the verb's command, in the order of the verb's signature."""
    for word, parameter in inspect.signature(verb.function).parameters.items():
        row = parameter_of(verb.name, word)
        if row.argument and parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            yield _argument(word, row, parameter.default is parameter.empty)
        else:
            yield _option(word, row, parameter.default)
    for word in verb.extra:
        yield _option(word, parameter_of(verb.name, word), None)


def values_of(verb: Verb, texts: Mapping[str, Any]) -> dict[str, Any]:
    """What the command line says, as arguments of the verb. A word that is not given is left out. Raises UserError."""
    rows = {word: parameter_of(verb.name, word) for word in texts}
    values = {word: row.parse(texts[word]) if row.parse else texts[word] for word, row in rows.items()}
    if "keep" in values:
        values["pins"] = joined_pins(values["pins"], values.pop("keep"))
    signature = inspect.signature(verb.function)
    optional = {word for word, parameter in signature.parameters.items() if parameter.default != parameter.empty}
    return {word: value for word, value in values.items() if word not in optional or value not in (None, ())}


def _argument(word: str, row: Parameter, required: bool) -> click.Argument:
    nargs = -1 if row.many else 1
    return click.Argument([word], type=_type(row), nargs=nargs, required=required, **_completed(row))


def _option(word: str, row: Parameter, default: Any) -> click.Option:
    flag, required = f"--{row.flag or word.replace('_', '-')}", default is inspect.Parameter.empty and not row.many
    if row.type is bool:
        names = f"{flag}/--no-{word}" if default else flag
        return click.Option([names, word], is_flag=True, default=default, show_default=bool(default), help=row.help)
    hidden = required or row.split or default in (inspect.Parameter.empty, None, ())
    shown = {} if hidden else {"default": default, "show_default": True}
    short = [f"-{row.short}"] if row.short else []
    return click.Option(
        [flag, *short, word], type=_type(row), required=required, multiple=row.many, metavar=row.metavar,
        help=row.help.format(names=_names(row)), **shown, **_completed(row),
    )  # fmt: skip


def _type(row: Parameter) -> Any:
    if row.split:
        return Commas()
    if row.choices:
        return click.Choice(tuple(row.choices))
    if row.least is not None:
        return click.IntRange(row.least)
    return {Path: click.Path(path_type=Path), float: Decimals()}.get(row.type, row.type)


def _completed(row: Parameter) -> dict[str, Any]:
    module, _, table = row.complete.partition(":")
    if table:
        return {"shell_complete": completion.members(module, table)}
    return {"shell_complete": getattr(completion, module)} if module else {}


def _names(row: Parameter) -> str:
    """`a, b or c`: the names of the table that completes the word."""
    module, _, table = row.complete.partition(":")
    names = completion.names_of(getattr(import_module(module), table)) if table and "{names}" in row.help else []
    return " or ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
