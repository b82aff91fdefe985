"""Records the calls of modules during a run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bitplan.sensitivity.runs.generators import states
from bitplan.sensitivity.runs.nested import copied


@dataclass(frozen=True, eq=False)
class RecordedCall:
    """One recorded call.

    Attributes:
        args, kwargs: copies of its arguments, detached.
        module: the module, or None if it is not to be repeated.
        random: the states of torch's generators at its start.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    module: nn.Module | None = None
    random: tuple[Tensor, ...] = ()


@contextlib.contextmanager
def recorded_calls(*modules: nn.Module) -> Iterator[list[RecordedCall]]:
    """Within the `with`, collects the arguments of every call of the modules."""
    calls: list[RecordedCall] = []

    def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # the module and the sampler may write into the arguments later; tensors of inference mode cannot be written to
        with torch.inference_mode(False), torch.no_grad():
            calls.append(RecordedCall(*copied((args, kwargs)), module, states()))

    with contextlib.ExitStack() as stack:
        for module in dict.fromkeys(modules):
            stack.callback(module.register_forward_pre_hook(record, with_kwargs=True).remove)
        yield calls
