"""nn.MultiheadAttention with its projections as layers: opened in place, and closed again.

Torch multiplies by the weights of such an attention itself, past the calls of modules, where no plan can reach them. An
opened one is the very same module, for the time being of the class `Attention`, which computes the same by calling
`q_proj`, `k_proj`, `v_proj` and `out_proj`, layers on the very memory of the weights. q, k and v are layers apart even
where torch packs them into one matrix: cross-attention reads two inputs, and where there is one, the layers that share
it are found as any others are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from plans.guards import guarded

PROJECTIONS = ("q_proj", "k_proj", "v_proj")
_NAMES = ("in_proj_weight", *(f"{name}_weight" for name in PROJECTIONS), "in_proj_bias")  # of a closed one's parameters


class AttentionError(ValueError):
    """What an opened attention does not take."""


@dataclass(frozen=True)
class Piece:
    """Where a closed attention holds a tensor of a projection: the rows `start` to `stop` of its parameter `name`."""

    name: str
    start: int
    stop: int

    def of(self, whole: Tensor) -> Tensor:
        """The rows, in the memory of the whole."""
        return whole[self.start : self.stop]


def pieces(attention: nn.MultiheadAttention) -> dict[str, Piece]:
    """Of a closed attention: `q_proj.weight` and the like -> where that is held. `out_proj` goes by its own name."""
    size, found = attention.embed_dim, dict[str, Piece]()
    for place, name in enumerate(PROJECTIONS):
        rows = (place * size, (place + 1) * size)
        apart = attention.in_proj_weight is None
        found[f"{name}.weight"] = Piece(f"{name}_weight", 0, size) if apart else Piece("in_proj_weight", *rows)
        if attention.in_proj_bias is not None:
            found[f"{name}.bias"] = Piece("in_proj_bias", *rows)
    return found


def held_names(attention: Attention) -> dict[str, str]:
    """`q_proj` and so on -> the name of the tensor that its weight is in while the attention is closed."""
    apart = not attention.__dict__["_qkv_same_embed_dim"]
    inner = {name: f"{name}_weight" if apart else "in_proj_weight" for name in PROJECTIONS}
    return inner | {"out_proj": "out_proj.weight"}


class Attention(nn.MultiheadAttention):
    """An opened attention; made by `open_attentions` only.

    To those who look it is one whose q, k and v have weights apart, so that torch's encoder layers, which would
    multiply by them themselves, call it instead.
    """

    q_proj: nn.Module
    k_proj: nn.Module
    v_proj: nn.Module

    @property
    def _qkv_same_embed_dim(self) -> bool:  # type: ignore[override]
        return False

    @property
    def in_proj_weight(self) -> Tensor | None:  # type: ignore[override]
        """The weights of q, k and v, one below the other, where they fit; made anew at each read."""
        weights = [self.get_submodule(name).weight for name in PROJECTIONS]
        return guarded(torch.cat(weights)) if self.kdim == self.vdim == self.embed_dim else None  # type: ignore

    @property
    def in_proj_bias(self) -> Tensor | None:  # type: ignore[override]
        """Likewise."""
        biases = [self.get_submodule(name).bias for name in PROJECTIONS]
        return None if biases[0] is None else guarded(torch.cat(biases))  # type: ignore

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None,
        need_weights: bool = True, attn_mask: Tensor | None = None, average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """As that of nn.MultiheadAttention. Projections are called on (batch, tokens, features), whatever comes in.

        Raises AttentionError for nested tensors, and for masks that torch refuses.
        """
        if query.is_nested or key.is_nested or value.is_nested:
            raise AttentionError("an attention with packed projections takes no nested tensors; give padded ones and "
                                 "key_padding_mask")  # fmt: skip
        batched = query.dim() == 3
        q, k, v = (self._turned(x) if batched else x.unsqueeze(0) for x in (query, key, value))
        if is_causal and attn_mask is None:
            raise AttentionError("is_causal is a hint on attn_mask; give the mask, too")
        hinted = is_causal and key_padding_mask is None and not need_weights
        mask = None if hinted else self._mask(attn_mask, key_padding_mask, q, k)
        q, k, v = self._projected(q, k, v)
        dropped = self.dropout if self.training else 0.0
        if need_weights:
            scores = (q * q.shape[-1] ** -0.5) @ k.mT
            weights = F.softmax(scores if mask is None else scores + mask, -1)
            weights = F.dropout(weights, dropped) if dropped else weights
            out = weights @ v
        else:
            out = F.scaled_dot_product_attention(q, k, v, mask, dropped, hinted)
        out = self.out_proj(out.transpose(1, 2).flatten(2))
        out = self._turned(out) if batched else out.squeeze(0)
        if not need_weights:
            return out, None
        weights = weights.mean(1) if average_attn_weights else weights
        return out, weights if batched else weights.squeeze(0)

    def _turned(self, x: Tensor) -> Tensor:
        """From what is given to (batch, tokens, features), and back."""
        return x if self.batch_first else x.transpose(0, 1)

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(batch, heads, tokens, features of a head) each, those of k and v with what the attention adds to them."""
        q, k, v = self.q_proj(query), self.k_proj(key), self.v_proj(value)
        if self.bias_k is not None and self.bias_v is not None:
            k, v = (torch.cat([x, own.expand(len(x), 1, -1)], 1) for x, own in ((k, self.bias_k), (v, self.bias_v)))
        q, k, v = (x.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2) for x in (q, k, v))
        if self.add_zero_attn:
            k, v = (F.pad(x, (0, 0, 0, 1)) for x in (k, v))
        return q, k, v

    def _mask(self, attn_mask: Tensor | None, padding: Tensor | None, q: Tensor, k: Tensor) -> Tensor | None:
        """What is added to the scores, for (batch, heads, tokens, keys) with the keys that the attention adds."""
        batch, tokens, keys = len(q), q.shape[1], k.shape[1]
        masks = []
        if attn_mask is not None:
            shape = (tokens, keys) if attn_mask.dim() == 2 else (batch * self.num_heads, tokens, keys)
            mask = _added(attn_mask, shape, q.dtype)
            masks.append(mask if mask.dim() == 2 else mask.unflatten(0, (batch, self.num_heads)))
        if padding is not None:
            rows = padding if padding.dim() == 2 else padding.unsqueeze(0)
            masks.append(_added(rows, (batch, keys), q.dtype)[:, None, None])
        more = (self.bias_k is not None) + self.add_zero_attn
        return F.pad(sum(masks[1:], masks[0]), (0, more)) if masks else None


def _added(mask: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A mask as numbers to add: -inf where one of truth values is true."""
    if tuple(mask.shape) != shape:
        raise AttentionError(f"a mask of the attention has shape {tuple(mask.shape)}; give {shape}")
    if mask.is_floating_point():
        return mask
    if mask.dtype != torch.bool:
        raise AttentionError(f"a mask of the attention is of {mask.dtype}; give truth values or floats")
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask, -torch.inf)


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


def refusal(module: nn.Module) -> str | None:
    """Why an attention of torch's cannot be opened; None for one that can or that is open, and for other modules."""
    if not isinstance(module, nn.MultiheadAttention) or isinstance(module, Attention):
        return None
    kind = type(module).__name__
    if type(module) is not nn.MultiheadAttention:
        return f"{kind} is a subclass of nn.MultiheadAttention, which may do anything with its weights"
    if "forward" in module.__dict__:
        return "its forward was replaced, by a hook perhaps, and may do anything with its weights"
    held = (module._parameters.get(piece.name) for piece in pieces(module).values())
    if not all(isinstance(tensor, nn.Parameter) for tensor in held):
        return "its weights are computed anew at each call, or not there yet"
    if type(module.out_proj).forward is not nn.Linear.forward:
        return f"its out_proj is a {type(module.out_proj).__name__}, which may do anything"
    return None


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
