"""Opens nn.MultiheadAttention in place, so that its projections are layers like any others, and closes it again.

Torch multiplies by the weights of such an attention itself, past the calls of modules, where no plan can reach them. An
opened one is the very same module, for the time being of the class `plans.attention.Attention`, which computes the same
by calling `q_proj`, `k_proj`, `v_proj` and `out_proj`, layers on the very memory of its weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from torch import nn

from plans.attention import PROJECTIONS, Attention, pieces, refusal

_NAMES = ("in_proj_weight", *(f"{name}_weight" for name in PROJECTIONS), "in_proj_bias")  # of a closed one's parameters


@dataclass(frozen=True, eq=False)
class Opening:
    """What was opened, to be closed. parameters: of each attention, what it held, by name; empty where that was not
    kept; encoders: those that were told to hand on padded tensors instead of nested ones."""

    attentions: tuple[nn.MultiheadAttention, ...] = ()
    parameters: tuple[Mapping[str, nn.Parameter | None], ...] = ()
    encoders: tuple[nn.TransformerEncoder, ...] = ()

    def for_good(self) -> Opening:
        """The same without what it takes to close it, for those memories to be freed."""
        return replace(self, parameters=())


def closed_in(components: Mapping[str, nn.Module]) -> dict[str, nn.MultiheadAttention]:
    """The attentions that can be opened, by their first address."""
    found: dict[nn.MultiheadAttention, str] = {}
    for component, root in components.items():
        for path, module in root.named_modules():
            if type(module) is nn.MultiheadAttention and refusal(module) is None:
                found.setdefault(module, f"{component}.{path}" if path else component)
    return {address: module for module, address in found.items()}


def holders(components: Mapping[str, nn.Module], layers: Iterable[str]) -> list[nn.MultiheadAttention]:
    """The closed attentions whose projections have these addresses, be it not their first."""
    able = set(closed_in(components).values())
    found: dict[nn.MultiheadAttention, None] = {}
    for parent, _, name in (layer.rpartition(".") for layer in layers):
        component, _, path = parent.partition(".")
        if able and name in (*PROJECTIONS, "out_proj") and component in components:
            try:
                module = components[component].get_submodule(path)
            except AttributeError:
                continue
            if isinstance(module, nn.MultiheadAttention) and module in able:
                found[module] = None
    return list(found)


def open_attentions(components: Mapping[str, nn.Module], attentions: Iterable[nn.MultiheadAttention]) -> Opening:
    """Opens these closed attentions of the components in place."""
    chosen = tuple(attentions)
    held = tuple(dict(attention._parameters) for attention in chosen)
    for attention in chosen:
        _open(attention)
    encoders = tuple(
        {module: None for root in components.values() for module in root.modules() if _nests(module, chosen)}
    )
    for encoder in encoders:
        encoder.use_nested_tensor = False
    return Opening(chosen, held, encoders)


def close(opening: Opening) -> None:
    """Makes the attentions what they were: the same modules with the same parameters, or none where none was kept."""
    for attention, held in zip(opening.attentions, opening.parameters, strict=False):
        for name in PROJECTIONS:
            attention._modules.pop(name, None)
        attention.__class__ = nn.MultiheadAttention
        now = dict(attention._parameters)
        attention._parameters.clear()
        attention._parameters.update({name: now.get(name, tensor) for name, tensor in held.items()})
    for encoder in opening.encoders if opening.parameters else ():
        encoder.use_nested_tensor = True


def reopen(opening: Opening) -> None:
    """Opens again what was closed."""
    for attention in opening.attentions:
        _open(attention)
    for encoder in opening.encoders:
        encoder.use_nested_tensor = False


@contextmanager
def opened(components: Mapping[str, nn.Module]) -> Iterator[None]:
    """For the length of the `with`, all attentions in the components that can be are open."""
    opening = open_attentions(components, closed_in(components).values())
    try:
        yield
    finally:
        close(opening)


def part_memory(opening: Opening) -> None:
    """Gives float projections memory of their own: a row of a matrix that is shared holds all of it."""
    for attention in opening.attentions:
        for name in PROJECTIONS:
            layer = attention.get_submodule(name)
            weight = layer._parameters.get("weight")
            if weight is not None and weight.untyped_storage().nbytes() > weight.nbytes:
                layer.weight = nn.Parameter(weight.detach().clone(), weight.requires_grad)


def _open(attention: nn.MultiheadAttention) -> None:
    layers = {name: _layer(attention, name) for name in PROJECTIONS}
    for name in _NAMES:
        del attention._parameters[name]
    others = dict(attention._modules)
    attention._modules.clear()
    attention._modules.update({**layers, **others})
    attention.__class__ = Attention


def _layer(attention: nn.MultiheadAttention, projection: str) -> nn.Linear:
    """A layer on the attention's memory."""
    tensors: dict[str, nn.Parameter | None] = {"weight": None, "bias": None}
    for name in tensors:
        if piece := pieces(attention).get(f"{projection}.{name}"):
            whole: nn.Parameter = getattr(attention, piece.name)
            tensors[name] = nn.Parameter(piece.of(whole.detach()), whole.requires_grad)
    weight = tensors["weight"]
    assert weight is not None
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=tensors["bias"] is not None, device="meta")
    layer.weight, layer.bias = weight, tensors["bias"]  # type: ignore[assignment]
    return layer.train(attention.training)


def _nests(module: nn.Module, attentions: tuple[nn.MultiheadAttention, ...]) -> bool:
    """Whether it would hand nested tensors to one of the attentions."""
    return (
        isinstance(module, nn.TransformerEncoder)
        and getattr(module, "use_nested_tensor", False)
        and not set(attentions).isdisjoint(module.modules())
    )
