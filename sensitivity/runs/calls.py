"""Records the calls of modules during a run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from bitplan.sensitivity.runs.nested import mapped


@dataclass(frozen=True, eq=False)
class RecordedCall:
    """One recorded call. module: what was called."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    module: nn.Module | None = None


@contextlib.contextmanager
def recorded_calls(*modules: nn.Module) -> Iterator[list[RecordedCall]]:
    """Collects the inputs of every call of the modules made inside the block."""
    calls: list[RecordedCall] = []

    def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # samplers may write into what they passed
        calls.append(RecordedCall(*(mapped(part, lambda x: x.detach().clone()) for part in (args, kwargs)), module))

    with contextlib.ExitStack() as stack:
        for module in dict.fromkeys(modules):
            stack.callback(module.register_forward_pre_hook(keep, with_kwargs=True).remove)
        yield calls
