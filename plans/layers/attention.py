"""nn.MultiheadAttention whose projections are layers that it calls; `bitplan.plans.layers.opening` makes it and
unmakes it.

q, k and v are layers apart even where torch packs them into one matrix: cross-attention reads two inputs, and where
there is one, the layers that share it are found as any others are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from bitplan.plans.layers.guards import guarded

PROJECTIONS = ("q_proj", "k_proj", "v_proj")


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
    """An opened attention, made by `bitplan.plans.layers.opening` only.

    To those who look it is one whose q, k and v have weights apart, so that torch's encoder layers, which would
    multiply by them themselves, call it instead.
    """

    q_proj: nn.Module
    k_proj: nn.Module
    v_proj: nn.Module
    q_proj_weight = property(lambda self: self.q_proj.weight)  # type: ignore[assignment]
    k_proj_weight = property(lambda self: self.k_proj.weight)  # type: ignore[assignment]
    v_proj_weight = property(lambda self: self.v_proj.weight)  # type: ignore[assignment]

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


class PaddedEncoder(nn.TransformerEncoder):
    """An encoder of opened attentions, made by `bitplan.plans.layers.opening`: what torch leaves out of nested
    tensors, which no layer
    takes, it computes in vain and sets to zero as torch does, before the last norm."""

    use_nested_tensor = property(lambda self: False)  # type: ignore[assignment]

    def forward(
        self, src: Tensor, mask: Tensor | None = None, src_key_padding_mask: Tensor | None = None,
        is_causal: bool | None = None,
    ) -> Tensor:  # fmt: skip
        """As that of nn.TransformerEncoder where no gradients are asked for."""
        out = super().forward(src, mask, src_key_padding_mask, is_causal)
        if mask is not None or src_key_padding_mask is None or src.dim() != 3 or not self._would_nest():
            return out
        kept = src_key_padding_mask.logical_not()
        aligned = (kept[:, 1:] <= kept[:, :-1]).all() if self.mask_check else True  # else torch pads as we do
        nothing = torch.zeros_like(out)
        return torch.where((~kept & aligned)[..., None], nothing if self.norm is None else self.norm(nothing), out)

    def _would_nest(self) -> bool:
        fast = torch.backends.mha.get_fastpath_enabled()
        return fast and not self.training and not torch.is_autocast_enabled()


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
