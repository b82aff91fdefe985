"""Puts quantized layers in place of float ones, for good, until `undo`, or for the length of a `with`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from bitplan.plans.formats.base import FormatError
from bitplan.plans.inputs.base import ActivationError
from bitplan.plans.kernels import REFERENCE, Kernel, KernelError, check_somewhere, choose_kernel, geometry_of
from bitplan.plans.kinds import CLASSES
from bitplan.plans.layers.addresses import find_module
from bitplan.plans.layers.modules import empty_module, kind_of, quantize_module, refusal_of
from bitplan.plans.layers.opening import Opening, close, narrow, open_all, open_for, opened, part_memory, reopen
from bitplan.plans.names import nearest_or_all
from bitplan.plans.numerics import NONE
from bitplan.plans.scheme import KEEP, Scheme
from bitplan.plans.transforms.base import Fitted


class SwapError(ValueError):
    """Layers that cannot be swapped or put back."""


@dataclass(frozen=True, eq=False)
class Place:
    """An attribute that holds a layer."""

    parent: nn.Module
    name: str


@dataclass(frozen=True, eq=False)
class Swapped:
    """One layer that was replaced. places: all that hold it; made: its quantized module; original: None where it was
    not kept."""

    address: str
    scheme: Scheme
    kernel: str
    places: tuple[Place, ...]
    made: nn.Module
    original: nn.Module | None


@dataclass(frozen=True, eq=False)
class Swap:
    """What `swap` did, for `undo` and for reports. opening: the attentions that were opened for it."""

    layers: tuple[Swapped, ...]
    opening: Opening = Opening()


@dataclass(frozen=True, eq=False)
class OpenLayers:
    """Float layers that were looked up while all attentions are open.

    Attributes:
        components: name -> module.
        opening: what was opened; `swap_open` closes what needs not stay open.
        modules: address -> float layer; `swap_open` takes them out, so that each can be freed once it is replaced.
    """

    components: Mapping[str, nn.Module]
    opening: Opening
    modules: dict[str, Any]


def swap(
    components: Mapping[str, nn.Module],
    schemes: Mapping[str, Scheme],
    fitted: Mapping[str, Fitted] | None = None,
    real: bool = True,
    keep_originals: bool = True,
) -> Swap:
    """Replaces every layer named in `schemes` (address `component.path`) in place; those of `keep` stay as they are.

    real: with kernels that compute on the stored codes, else with the simulation. keep_originals: hold the float layers
    for `undo`; without them each float weight is freed as its layer is replaced. Attentions whose projections are
    replaced are opened (`bitplan.plans.layers.attention`). If anything fails nothing is replaced,
    unless originals were not kept. Raises SwapError for an unknown address, KernelError for a scheme that no kernel
    runs here, ActivationError or FormatError, with the address, for what a layer lacks.
    """
    layers = open_layers(components, schemes)
    return swap_open(layers, schemes, fitted, real, keep_originals)


def open_layers(components: Mapping[str, nn.Module], addresses: Iterable[str]) -> OpenLayers:
    """Opens all attentions and looks the layers up. Raises SwapError for an unknown address, with all closed again."""
    opening = open_all(components)
    try:
        modules = {address: find_layer(components, address) for address in addresses}
    except BaseException:  # an interrupt, too, leaves what it finds
        close(opening)
        raise
    return OpenLayers(components, opening, modules)


def swap_open(
    layers: OpenLayers,
    schemes: Mapping[str, Scheme],
    fitted: Mapping[str, Fitted] | None = None,
    real: bool = True,
    keep_originals: bool = True,
) -> Swap:
    """As `swap`, of layers that `open_layers` looked up; what needs not stay open is closed."""
    try:
        chosen = _choose(layers, schemes, real)
    except BaseException:
        close(layers.opening)
        raise
    opening = narrow(layers.opening, layers.components, chosen)
    if not keep_originals:
        opening = opening.for_good()
    swapped: list[Swapped] = []
    try:
        for layer in _replaced(layers, chosen, schemes, fitted or {}):
            swapped.append(layer if keep_originals else replace(layer, original=None))
            del layer  # else its float weight is there while the next layer is quantized
    except BaseException:
        if keep_originals:
            undo(Swap(tuple(swapped), opening))
        raise
    if not keep_originals:
        part_memory(opening)
    return Swap(tuple(swapped), opening)


def _replaced(
    layers: OpenLayers, chosen: Mapping[str, Kernel], schemes: Mapping[str, Scheme], fitted: Mapping[str, Fitted]
) -> Iterator[Swapped]:
    """Replaces one layer after the other; errors name the layer."""
    places, modules = places_in(layers.components), {address: layers.modules[address] for address in chosen}
    layers.modules.clear()
    for address, kernel in chosen.items():
        module, scheme = modules.pop(address), schemes[address]
        try:
            packed = quantize_module(module, scheme, kernel, fitted.get(address, NONE))
        except (ActivationError, FormatError, KernelError) as error:
            raise type(error)(f"{address}: {error}") from error
        yield Swapped(address, scheme, kernel.name, places[id(module)], packed, module)  # known before it is there
        put(places[id(module)], packed)


def lay_out(components: Mapping[str, nn.Module], schemes: Mapping[str, Scheme], real: bool = True) -> None:
    """As `swap`, for good and without data: puts packed layers on the meta device, for stored tensors to go into.

    The layers may be on the meta device themselves. Raises SwapError for an unknown address, KernelError for a scheme
    that no kernel runs on any device. If anything fails nothing is replaced.
    """
    opening = open_for(components, schemes)
    places, made = places_in(components), {}
    try:
        for address, scheme in schemes.items():
            module = find_layer(components, address)
            if real:
                _check_somewhere(module, address, scheme)
            else:
                _kernel_for(module, address, scheme, False)
            made[id(module)] = empty_module(module, scheme, real)
    except BaseException:
        close(opening)
        raise
    for key, layer in made.items():
        put(places[key], layer)


def undo(swap: Swap) -> None:
    """Puts the float layers back. Raises SwapError if they were not kept."""
    check_kept(swap)
    for layer in swap.layers:
        put(layer.places, layer.original)
    close(swap.opening)


def check_kept(swap: Swap) -> None:
    """Raises SwapError if float layers were not kept."""
    gone = sum(layer.original is None for layer in swap.layers)
    if gone:
        raise SwapError(f"{gone} float layers were not kept; load the pipeline again, or swap with keep_originals=True")


def redo(swap: Swap) -> None:
    """Puts the quantized layers of an undone swap in place again, without quantizing anew."""
    reopen(swap.opening)
    for layer in swap.layers:
        put(layer.places, layer.made)


def find_layer(components: Mapping[str, nn.Module], address: str) -> Any:
    """The float layer at `component.path`. Raises SwapError with the nearest known address if there is none."""
    module = find_module(components, address)
    if module is None:
        with opened(components):
            raise SwapError(f"no layer {address!r}{_nearest(components, address)}")
    if "." not in address or kind_of(module) is None:
        what = f"{address} is a {type(module).__name__}, which is no layer to swap"
        why = refusal_of(module) or f"none of {CLASSES}"
        raise SwapError(f"{what} ({why}); name another layer, or undo the swap first")
    return module


def layer_addresses(components: Mapping[str, nn.Module]) -> tuple[str, ...]:
    """The addresses of all layers that can be swapped, in the order of the modules."""
    return tuple(
        f"{component}.{path}"
        for component, root in components.items()
        for path, module in root.named_modules()
        if path and kind_of(module)
    )


def _nearest(components: Mapping[str, nn.Module], address: str) -> str:
    return nearest_or_all(address, layer_addresses(components)) or "; these components have no layers"


def _choose(layers: OpenLayers, schemes: Mapping[str, Scheme], real: bool) -> dict[str, Kernel]:
    """A kernel for each layer to be replaced: all that can be refused is refused before the first replacement."""
    chosen: dict[str, Kernel] = {}
    holder: dict[int, str] = {}
    for address, scheme in schemes.items():
        module = layers.modules[address]
        other = holder.setdefault(id(module), address)
        if schemes[other] != scheme:
            both = f"{schemes[other]} and {scheme}"
            raise SwapError(f"{other} and {address} are one module with two schemes, {both}; give it one")
        if scheme == KEEP or other != address:
            continue
        chosen[address] = _kernel_for(module, address, scheme, real)
    return chosen


def _kernel_for(module: Any, address: str, scheme: Scheme, real: bool) -> Kernel:
    kind, device, geometry = str(kind_of(module)), module.weight.device, geometry_of(module)
    if real:
        try:
            return choose_kernel(scheme, kind, device, True, geometry)
        except KernelError as error:
            raise KernelError(f"{address}: {error}") from None
    reason = REFERENCE.supports(scheme, kind, device, geometry)
    if reason:
        raise KernelError(f"{address}: {scheme} cannot be simulated: {reason}; give it another scheme")
    return REFERENCE


def _check_somewhere(module: Any, address: str, scheme: Scheme) -> None:
    try:
        check_somewhere(scheme, str(kind_of(module)), geometry_of(module))
    except KernelError as error:
        raise KernelError(f"{address}: {error}") from None


def places_in(components: Mapping[str, nn.Module]) -> dict[int, tuple[Place, ...]]:
    """Where each module is held, by its id; a module used twice has two places."""
    places: dict[int, tuple[Place, ...]] = {}
    for parent in {module: None for root in components.values() for module in root.modules()}:
        for name, child in parent._modules.items():
            if child is not None:
                places[id(child)] = (*places.get(id(child), ()), Place(parent, name))
    return places


def put(places: Iterable[Place], module: nn.Module | None) -> None:
    """Puts a module in these places."""
    for place in places:
        setattr(place.parent, place.name, module)
