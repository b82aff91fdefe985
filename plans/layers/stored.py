"""The tensors of a packed layer, as parameters that are not trained and, where they hold numbers, not cast."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from bitplan.plans.formats.storage import Packed, empty, quantize
from bitplan.plans.numerics import NONE, fitted_for, layout_of, transformed_weight
from bitplan.plans.scheme import Scheme
from bitplan.plans.transforms.base import Fitted

COMPUTE = "compute"  # the name of the empty parameter that has the type in which a packed layer computes


class Untrained(nn.Parameter):
    """A parameter of any dtype without a gradient: to ask for one changes nothing, so that it may be asked of a whole
    model.

    Attributes:
        asked: what was asked for last; None if nothing was.
    """

    asked: bool | None = None

    def __new__(cls, data: Tensor, requires_grad: bool = False) -> Any:
        """requires_grad: as nn.Parameter has it, for those who make one tensor from another; not heeded."""
        return super().__new__(cls, data, requires_grad=False)  # type: ignore[call-arg]

    @property
    def requires_grad(self) -> bool:
        return False

    @requires_grad.setter
    def requires_grad(self, requires_grad: bool) -> None:
        self.asked = requires_grad

    def requires_grad_(self, requires_grad: bool = True) -> Any:
        self.asked = requires_grad
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        return type(self), (self.data,)


class Stored(Untrained):
    """Codes, scales and the like: a parameter, for what offloads a model moves its parameters and leaves its buffers.

    It says that it is no floating-point tensor even where its numbers are, by which casts of a model to another float
    type pass it over, and those that look for a model's own float type too.
    """

    def is_floating_point(self) -> bool:
        return False


def without_compute(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns what files contain of the state dict of a model with packed layers."""
    return {key: tensor for key, tensor in state_dict.items() if key.rpartition(".")[2] != COMPUTE}


def stored_names(scheme: Scheme) -> tuple[str, ...]:
    """The names of a packed layer's tensors in its state dict, bias apart."""
    shape = (1, 1)  # the names do not depend on it
    return (*empty(shape, scheme.weight).tensors, *layout_of(scheme, shape))


def stored_tensors(weight: Tensor, scheme: Scheme, fitted: Fitted = NONE) -> dict[str, Tensor]:
    """Those tensors for a layer with `weight`. Raises ActivationError for a fitted parameter that is missing,
    FormatError for weights that cannot be stored."""
    packed, held = stored_weight(weight, scheme, fitted)
    return {**packed.tensors, **held}


def stored_weight(weight: Tensor, scheme: Scheme, fitted: Fitted) -> tuple[Packed, dict[str, Tensor]]:
    """The stored weight of a layer with `weight`, and its fitted parameters. Raises as `stored_tensors`."""
    held = fitted_for(scheme, weight.shape, fitted, weight.device)
    return quantize(transformed_weight(weight.detach(), scheme, held), scheme.weight), held
