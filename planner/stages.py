"""The parts of a pipeline that it calls as wholes: found by running it once, never by names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from torch import nn


@contextmanager
def watched_stages(components: Mapping[str, nn.Module]) -> Iterator[dict[str, int]]:
    """Within the `with`, counts the calls that are not made inside another module's call: address -> calls, in order
    of the first one. A component called as a whole is one; of a decoder that is reached by a method of its own, these
    are the modules that the method calls."""
    counts: dict[str, int] = {}
    inside: list[nn.Module] = []

    def enter(module: nn.Module, address: str) -> None:
        if not inside:
            counts[address] = counts.get(address, 0) + 1
        inside.append(module)

    def leave() -> None:
        inside.pop()

    with ExitStack() as stack:
        for module, address in _addresses(components).items():
            before = module.register_forward_pre_hook(lambda m, _, address=address: enter(m, address))
            after = module.register_forward_hook(lambda *_: leave(), always_call=True)
            stack.callback(before.remove)
            stack.callback(after.remove)
        yield counts


def stage_modules(components: Mapping[str, nn.Module], addresses: Iterable[str]) -> dict[str, nn.Module]:
    """The modules of these addresses."""
    found = {}
    for address in addresses:
        component, _, path = address.partition(".")
        found[address] = components[component].get_submodule(path)
    return found


def _addresses(components: Mapping[str, nn.Module]) -> dict[nn.Module, str]:
    """Every module below the components by its first address; one that two components share is the first one's."""
    found: dict[nn.Module, str] = {}
    for component, root in components.items():
        for path, module in root.named_modules():
            found.setdefault(module, f"{component}.{path}" if path else component)
    return found
