"""Puts float layers back where their quantized modules are now, whatever was done to the model in between."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from bitplan.plans.layers.attention import PROJECTIONS, Attention
from bitplan.plans.layers.carried import carry_attributes, has_own_forward
from bitplan.plans.layers.modules import OWN, kind_of, refusal_of
from bitplan.plans.layers.opening import close
from bitplan.plans.layers.stored import COMPUTE
from bitplan.plans.layers.swap import Swap, SwapError, Swapped, check_kept, places_in, put


def put_back(components: Mapping[str, nn.Module], swap: Swap) -> None:
    """Puts each float layer of `swap` in the places that its quantized module has in the components now.

    A place may be inside a wrapper, such as that of a LoRA, which stays. The float layer gets the float type, the
    device, the bias, the mode and the attributes of the quantized module, and requires a gradient as was asked for
    last; they share their hooks. A quantized module without a place was replaced by something else, which stays. Raises
    SwapError, and changes nothing, if the float layers were not kept, the weights are on the meta device, or something
    hangs on a quantized module that would be lost.
    """
    check_kept(swap)
    places = places_in(components)
    layers = [layer for layer in swap.layers if id(layer.made) in places]
    for layer in layers:
        _check(layer)
    for attention in swap.opening.attentions:
        _check_attention(attention)
    for layer in layers:
        _follow(layer.original, layer.made)
        put(places[id(layer.made)], layer.original)
    close(swap.opening)


def _check(layer: Swapped) -> None:
    made: Any = layer.made
    if made.device.type == "meta":
        raise SwapError(f"the weights of {layer.address} are on the device meta, as offloading leaves them; turn "
                        f"offloading off first, such as with remove_all_hooks() of the pipeline")  # fmt: skip
    if has_own_forward(made):
        raise SwapError(f"{layer.address} has got a forward of its own since the plan was applied, as LoRA scripts and "
                        f"the hooks of accelerate give it; remove it first")  # fmt: skip


def _check_attention(attention: nn.MultiheadAttention) -> None:
    """Raises SwapError if a projection, which is no module of its own in full precision, has got a wrapper."""
    if isinstance(attention, Attention):
        for name in PROJECTIONS:
            projection = attention.get_submodule(name)
            if kind_of(projection) is None and refusal_of(projection) is None:
                raise SwapError(f"a {type(projection).__name__} is around the projection {name} of an attention, which "
                                f"is one matrix with others in full precision; unload the LoRA first")  # fmt: skip


def _follow(original: Any, made: Any) -> None:
    compute = made.get_parameter(COMPUTE)
    original.to(device=made.device, dtype=compute.dtype).train(made.training)
    if compute.asked is not None:
        original.weight.requires_grad_(compute.asked)
    carry_attributes(made, original, OWN)
    if "bias" in original._parameters:
        original._parameters["bias"] = made._parameters["bias"]
