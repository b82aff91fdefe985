"""Finds the modules that a pipeline calls directly, by running it once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from bitplan.plans.layers.addresses import addresses
from bitplan.sensitivity.probes.writes import Snapshot


@contextmanager
def watched_stages(components: Mapping[str, nn.Module], keeping: set[str] | None = None) -> Iterator[dict[str, int]]:
    """Within the `with`, counts the outermost module calls: address -> calls, in order of the first one.

    A component is counted when it is called as a whole. If the pipeline calls another method of it, such as `decode`,
    the modules that this method calls are counted. keeping: receives the addresses of modules that leave
    something in their arguments, such as a cache, for a later call.
    """
    counts: dict[str, int] = {}
    inside: list[Snapshot | None] = []

    def enter(address: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not inside:
            counts[address] = counts.get(address, 0) + 1
        inside.append(None if inside or keeping is None else Snapshot((args, kwargs)))

    def leave(address: str) -> None:
        snapshot = inside.pop()
        if keeping is not None and snapshot is not None and snapshot.kept():
            keeping.add(address)

    with ExitStack() as stack:
        for module, (address, *_) in addresses(components).items():
            before = module.register_forward_pre_hook(
                lambda _, args, kwargs, address=address: enter(address, args, kwargs), with_kwargs=True
            )
            after = module.register_forward_hook(lambda *_, address=address: leave(address), always_call=True)
            stack.callback(before.remove)
            stack.callback(after.remove)
        yield counts
