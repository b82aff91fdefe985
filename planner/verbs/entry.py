"""What happens to the arguments of every verb before it begins, in Python and on the command line alike.

Imports no torch by itself.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitplan.planner.errors import UserError

if TYPE_CHECKING:
    from bitplan.planner.verbs.parameters import Parameter


@functools.cache
def entered(verb: str, function: Callable[..., Any], command: str, needs: str) -> Callable[..., Any]:
    """The function of a verb. The names of pipelines, metrics and models among its arguments are marked as typed by the
    user, and the places that it writes to are checked before it begins, as `bitplan.planner.files.check_place` says. An
    interrupt leaves it with a note on what it has kept; too little memory and a missing package become one line with
    what to do. needs: the extra whose packages it needs always, or empty."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: Any, **words: Any) -> Any:
        from bitplan.planner.extras import require, telling_missing
        from bitplan.planner.interrupts import current, recorded
        from bitplan.planner.pipelines.references import typed
        from bitplan.planner.verbs.order import check_order
        from bitplan.planner.verbs.shortage import telling_shortage

        require(needs, command)
        bound = signature.bind(*args, **words)
        rows = rows_of(verb, bound.arguments)
        for word in (word for word, row in rows.items() if row.loads):
            bound.arguments[word] = typed(bound.arguments[word])
        bound.arguments |= _listed(rows, bound.arguments)
        check_order(command, rows, bound.arguments)
        _check_combination(verb, bound)
        _check_places(rows, bound.arguments)
        _check_distinct(rows, bound.arguments)
        _check_values(rows, bound.arguments)
        with recorded(current()), telling_shortage(verb, signature.parameters), telling_missing(command):
            return function(*bound.args, **bound.kwargs)

    return call


def rows_of(verb: str, words: Mapping[str, Any]) -> dict[str, Parameter]:
    """Word -> its row, of the words of a verb that are on the command line, too."""
    from bitplan.planner.verbs.parameters import PARAMETERS

    found = {word: PARAMETERS.get(f"{verb}.{word}") or PARAMETERS.get(word) for word in words}
    return {word: row for word, row in found.items() if row is not None}


def _listed(rows: Mapping[str, Parameter], values: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The lists that are given as one text, which Python would read as a list of letters."""
    texts = {word: row for word, row in rows.items() if (row.many or row.split) and isinstance(values[word], str)}
    return {word: tuple(values[word].split(",")) if row.split else (values[word],) for word, row in texts.items()}


def _check_distinct(rows: Mapping[str, Parameter], values: Mapping[str, Any]) -> None:
    """Raise UserError for a list that has one value twice, unless its row allows that."""
    for word, row in rows.items():
        several = values[word] if (row.many or row.split) and not (row.parse or row.repeats) else ()
        known: list[object] = []
        for value in _each(several):
            if (place := _place(value) if row.reads and isinstance(value, (str, Path)) else value) in known:
                raise UserError(f"{row.flag or word} has {value} twice; name it once")
            known.append(place)


def _check_values(rows: Mapping[str, Parameter], values: Mapping[str, Any]) -> None:
    """Raise an error for a value that the verb could never take, before anything slow."""
    from bitplan.planner.verbs import early

    for word, row in rows.items():
        if row.check and values[word] is not None:
            getattr(early, row.check)(values[word])


def _check_combination(verb: str, given: inspect.BoundArguments) -> None:
    from bitplan.planner.verbs.combinations import check_combination

    parameters = given.signature.parameters
    defaults = {word: each.default for word, each in parameters.items() if each.default is not each.empty}
    check_combination(verb, {**defaults, **given.arguments}, defaults)


def _place(value: str | Path) -> str:
    """Where the file is; the value itself where the system cannot say, which reading it tells better."""
    try:
        return os.path.realpath(value)
    except (OSError, ValueError):
        return str(value)


def _check_places(rows: Mapping[str, Parameter], values: Mapping[str, Any]) -> None:
    from bitplan.planner.files import check_place

    inputs = [value for word, row in rows.items() if row.reads or row.loads for value in _each(values[word])]
    for word, row in rows.items():
        if row.writes and values[word] is not None:
            check_place(values[word], row.writes, inputs, row.continues)


def _each(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple)):
        yield from value
    else:
        yield value
