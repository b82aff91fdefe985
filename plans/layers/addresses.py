"""Addresses of modules: `component.path`, or `component` alone for the component itself."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn


class AddressError(ValueError):
    """An address where there is no module."""


def addresses(components: Mapping[str, nn.Module]) -> dict[nn.Module, tuple[str, ...]]:
    """Returns all addresses of every module below the components, in the order of the first ones."""
    names: dict[nn.Module, tuple[str, ...]] = {}
    for component, root in components.items():
        for path, module in root.named_modules(remove_duplicate=False):
            names[module] = (*names.get(module, ()), f"{component}.{path}" if path else component)
    return names


def module_at(components: Mapping[str, nn.Module], address: str) -> nn.Module:
    """Returns the module at an address. Raises AddressError; an attention has its projections only while it is open."""
    module = find_module(components, address)
    if module is None:
        raise AddressError(f"{address}: no such module in {', '.join(components)}; trace the model again")
    return module


def find_module(components: Mapping[str, nn.Module], address: str) -> nn.Module | None:
    """Returns the module at an address, or None."""
    component, _, path = address.partition(".")
    try:
        return components[component].get_submodule(path)
    except (KeyError, AttributeError):
        return None
