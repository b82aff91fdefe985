"""Models that diffusers makes from the weights of another one get float weights from a packed one.

Diffusers copies the weights by name and would not find those of packed layers: some of its methods then leave random
ones without a word, others raise an error. Each is called with a float copy of the packed model instead, of the weights
that it computes with, whose config does not say that it is packed.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from diffusers.configuration_utils import ConfigMixin

from bitplan.planner.errors import UserError
from bitplan.planner.pipelines.marks import is_marked, unmark
from bitplan.plans.layers.unpacked import UnpackError, has_packed, unpacked


def derive(method: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Calls a method with float copies of packed models, as a wrapper of `wrapt`. instance: a model, or a class.

    Raises UserError where a model has no float copy.
    """
    floats = {name: float_copy(value) for name, value in kwargs.items()}
    return method.__func__(float_copy(instance), *map(float_copy, args), **floats)


def float_copy(value: Any) -> Any:
    """A model with packed layers as a float one; anything else unchanged."""
    if not has_packed(value):
        return value
    try:
        copy = unpacked(value)
    except UnpackError as error:
        raise UserError(f"another model cannot be made from this packed {type(value).__name__}: {error}; make it from "
                        f"the float model") from None  # fmt: skip
    for module in copy.modules():
        if is_marked(module):
            _forget(module)
    return copy


def _forget(module: Any) -> None:
    """Makes the copy of a model say that it is float. Its config is its own: some methods of diffusers change it."""
    if isinstance(module, ConfigMixin):
        module._internal_dict = deepcopy(module._internal_dict)
    else:
        module.config = deepcopy(module.config)
    unmark(module)
