"""Gives a verb the words of a choice, which stand in `bitplan.planner.choice.request.Request` alone."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields
from typing import Any

from bitplan.planner.choice.request import Request


def takes_request(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Replace the verb's keyword parameter `request` by the fields of `Request`, in its signature and in its calls."""

    @functools.wraps(verb)
    def call(*args: Any, **words: Any) -> Any:
        chosen = {each.name: words.pop(each.name) for each in fields(Request) if each.name in words}
        request = Request(**{name: value for name, value in chosen.items() if value is not None})
        return verb(*args, request=request, **words)

    signature = inspect.signature(verb)
    parameters = [one for each in signature.parameters.values() for one in _expanded(each)]
    vars(call)["__signature__"] = signature.replace(parameters=parameters)
    return call


def _expanded(parameter: inspect.Parameter) -> Iterator[inspect.Parameter]:
    if parameter.name != "request":
        yield parameter
        return
    for each in fields(Request):
        default, kind = each.default, each.type
        if default is MISSING:  # an empty dictionary, which None stands for
            default, kind = None, f"{kind} | None"
        yield parameter.replace(name=each.name, default=default, annotation=kind)
