"""What happens to the arguments of every verb before it begins, in Python and on the command line alike.

Imports no torch by itself.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any


@functools.cache
def entered(verb: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function of a verb, whose names of pipelines, metrics and models are marked as typed by the user."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: Any, **words: Any) -> Any:
        from bitplan.planner.pipelines.references import typed

        bound = signature.bind(*args, **words)
        for word in names_of(verb) & bound.arguments.keys():
            bound.arguments[word] = typed(bound.arguments[word])
        return function(*bound.args, **bound.kwargs)

    return call


def names_of(verb: str) -> frozenset[str]:
    """The words of a verb by which the user names what is loaded."""
    from bitplan.planner.verbs.parameters import PARAMETERS

    rows = {key.rpartition(".")[2]: row for key, row in PARAMETERS.items() if key.rpartition(".")[0] in ("", verb)}
    return frozenset(word for word, row in rows.items() if row.loads)
