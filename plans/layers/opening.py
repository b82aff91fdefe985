"""Opens nn.MultiheadAttention in place, so that its projections are layers like any others, and closes it again.

It also merges embeddings that have one weight, and splits them again (`bitplan.plans.layers.twins`).

Torch multiplies by the weights of such an attention itself, past the calls of modules, where no plan can reach them. An
opened one is the very same module, for the time being of the class `bitplan.plans.layers.attention.Attention`, which
computes the same
by calling `q_proj`, `k_proj`, `v_proj` and `out_proj`, layers on the very memory of its weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from torch import nn

from bitplan.plans.layers.addresses import addresses, find_module
from bitplan.plans.layers.attention import PROJECTIONS, Attention, PaddedEncoder, pieces, refusal
from bitplan.plans.layers.twins import Twin, merge, put_firsts, split

_NAMES = ("in_proj_weight", *(f"{name}_weight" for name in PROJECTIONS), "in_proj_bias")  # of a closed one's parameters
Parameters = Mapping[str, nn.Parameter | None]


@dataclass(frozen=True, eq=False)
class Opening:
    """What was opened, to be closed. parameters: of each attention, what it held, by name; None where that was not
    kept; encoders: those that would have made nested tensors; twins: embeddings that were merged."""

    attentions: tuple[nn.MultiheadAttention, ...] = ()
    parameters: tuple[Parameters, ...] | None = ()
    encoders: tuple[nn.TransformerEncoder, ...] = ()
    twins: tuple[Twin, ...] = ()

    def for_good(self) -> Opening:
        """The same without what it takes to close it, for those memories to be freed."""
        return replace(self, parameters=None)


def closed_in(components: Mapping[str, nn.Module]) -> dict[str, nn.MultiheadAttention]:
    """The attentions that can be opened, by their first address."""
    return {
        names[0]: module
        for module, names in addresses(components).items()
        if type(module) is nn.MultiheadAttention and refusal(module) is None
    }


def holders(components: Mapping[str, nn.Module], layers: Iterable[str]) -> list[nn.MultiheadAttention]:
    """The closed attentions whose projections have these addresses, be it not their first."""
    able = set(closed_in(components).values())
    parents = (layer.rpartition(".") for layer in layers if able)
    modules = (find_module(components, parent) for parent, _, name in parents if name in (*PROJECTIONS, "out_proj"))
    return list(dict.fromkeys(module for module in modules if module in able))


def open_for(components: Mapping[str, nn.Module], layers: Iterable[str]) -> Opening:
    """Opens, in place, what is in the way of packing these layers: attentions whose projections they are, and encoders
    that hold them."""
    return narrow(open_all(components), components, layers)


def open_all(components: Mapping[str, nn.Module]) -> Opening:
    """Opens, in place, what is in the way of packing any layer."""
    held = _open_all(closed_in(components).values())
    return Opening(tuple(held), tuple(held.values()), _padded(_nesting(components)), merge(components))


def close(opening: Opening) -> None:
    """Makes the attentions what they were: the same modules with the same parameters; where none were kept, nothing."""
    if opening.parameters is None:
        return
    for attention, held in zip(opening.attentions, opening.parameters, strict=True):
        _follow(held, attention)
        for name in PROJECTIONS:
            attention._modules.pop(name, None)
        attention.__class__ = nn.MultiheadAttention
        now = dict(attention._parameters)
        attention._parameters.clear()
        attention._parameters.update({name: now.get(name, tensor) for name, tensor in held.items()})
    for encoder in opening.encoders:
        encoder.__class__ = nn.TransformerEncoder
    split(opening.twins)


def _follow(held: Parameters, attention: nn.MultiheadAttention) -> None:
    """Gives what the attention held the float type and the device that its projections have now, and whether they
    require a gradient."""
    projection = attention._modules.get(PROJECTIONS[0])
    for name, tensor in held.items():
        now = None if projection is None else projection._parameters.get(name.rpartition("_")[2])  # weight or bias
        if tensor is not None and now is not None:
            tensor.requires_grad_(now.requires_grad)
            if (tensor.dtype, tensor.device) != (now.dtype, now.device):
                tensor.data = tensor.data.to(now.device, now.dtype)


def reopen(opening: Opening) -> None:
    """Opens again what was closed since."""
    for attention in opening.attentions:
        if not isinstance(attention, Attention):
            _open(attention)
    _padded(opening.encoders)
    put_firsts(opening.twins)


def narrow(opening: Opening, components: Mapping[str, nn.Module], layers: Iterable[str]) -> Opening:
    """Closes what `open_all` opened in these components and packing `layers` does not need; returns the rest."""
    names = list(layers)
    parents = {find_module(components, name.rpartition(".")[0]) for name in names}
    packed = {module for name in names if (module := find_module(components, name))}
    assert opening.parameters is not None
    held = list(zip(opening.attentions, opening.parameters, strict=True))
    needed = _opening(
        [pair for pair in held if pair[0] in parents],
        [encoder for encoder in opening.encoders if not packed.isdisjoint(encoder.modules())],
        [twin for twin in opening.twins if twin.first in packed],
    )
    close(_opening(
        [pair for pair in held if pair[0] not in parents],
        [encoder for encoder in opening.encoders if encoder not in needed.encoders],
        [twin for twin in opening.twins if twin.first not in packed],
    ))  # fmt: skip
    return needed


@contextmanager
def opened(components: Mapping[str, nn.Module]) -> Iterator[None]:
    """For the length of the `with`, all attentions in the components that can be are open."""
    opening = open_all(components)
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


def _opening(
    held: Iterable[tuple[nn.MultiheadAttention, Parameters]], encoders: Iterable[nn.TransformerEncoder],
    twins: Iterable[Twin],
) -> Opening:  # fmt: skip
    pairs = tuple(held)
    parameters = tuple(parameters for _, parameters in pairs)
    return Opening(tuple(a for a, _ in pairs), parameters, tuple(encoders), tuple(twins))


def _open_all(attentions: Iterable[nn.MultiheadAttention]) -> dict[nn.MultiheadAttention, Parameters]:
    """What each held."""
    held = {attention: dict(attention._parameters) for attention in attentions}
    for attention in held:
        _open(attention)
    return held


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


def _nesting(components: Mapping[str, nn.Module]) -> list[nn.TransformerEncoder]:
    """The encoders that would hand nested tensors to their layers, which packed ones do not take."""
    modules = {module: None for root in components.values() for module in root.modules()}
    return [module for module in modules if type(module) is nn.TransformerEncoder and module.use_nested_tensor]


def _padded(encoders: Iterable[nn.TransformerEncoder]) -> tuple[nn.TransformerEncoder, ...]:
    found = tuple(encoders)
    for encoder in found:
        encoder.__class__ = PaddedEncoder
    return found
