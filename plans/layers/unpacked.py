"""Float copies of models with packed layers, for code that makes another model from the weights of one."""

from __future__ import annotations

from typing import Any

from torch import nn

from bitplan.plans.formats.storage import dequantize
from bitplan.plans.kinds import KINDS
from bitplan.plans.layers.attention import Attention
from bitplan.plans.layers.modules import FLOAT, is_packed
from bitplan.plans.numerics import member_of
from bitplan.plans.transforms.base import unchanged


class UnpackError(ValueError):
    """Packed layers that no float layer stands for."""


def has_packed(module: Any) -> bool:
    """Whether a module has packed layers, or is one."""
    return isinstance(module, nn.Module) and any(map(is_packed, module.modules()))


def unpacked(module: nn.Module) -> nn.Module:
    """A copy of `module` with a float layer, of the weights that it computes with, in place of each packed one.

    All else is shared: every other tensor, and the attributes of modules. Raises UnpackError where the stored weights
    are on the device meta, a transform changed them, or they are those of an nn.MultiheadAttention.
    """
    copies: dict[nn.Module, nn.Module] = {}
    for one in module.modules():
        copies[one] = _float(one) if is_packed(one) else _shell(one)
    for one, copy in copies.items():
        if not is_packed(one):
            copy._modules = {name: child and copies[child] for name, child in one._modules.items()}
    return copies[module]


def _shell(module: nn.Module) -> nn.Module:
    """The same module as another object, whose children can be exchanged."""
    if isinstance(module, Attention) and has_packed(module):
        raise UnpackError("the packed projections of an nn.MultiheadAttention have no float copy")
    copy = object.__new__(type(module))
    copy.__dict__.update(module.__dict__)
    return copy


def _float(layer: Any) -> nn.Module:
    """The float layer of the weights that a packed one computes with."""
    if layer.device.type == "meta":
        raise UnpackError("the packed weights are moved away between calls, as offloading does")
    if any(member_of(term).weight is not unchanged for term in layer.scheme.transforms):
        raise UnpackError(f"a weight packed as {layer.scheme} is that of a transformed input")
    made: Any = object.__new__(FLOAT[layer.kind])
    nn.Module.__init__(made)
    for name in KINDS[layer.kind].attributes:
        setattr(made, name, getattr(layer, name))
    made.weight = nn.Parameter(dequantize(layer.packed).to(layer.compute.dtype))
    if layer.kind != "embedding":
        made.register_parameter("bias", layer.bias)
    return made.train(layer.training)
