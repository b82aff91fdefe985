"""Looking up `X.weight` in the state dict of a model whose layer X is packed.

The LoRA loaders of diffusers look a layer's weight up in `model.state_dict()` for its shape and device. The state dict
of a packed layer holds codes and scales only. This file imports no torch before it is used.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


class PackedStateDict(OrderedDict[str, Any]):
    """The state dict of `model`, of which `state_dict["X.weight"]` computes the weight of a packed layer X.

    `in`, `len`, `get`, iteration, copies and files know the stored tensors alone.
    """

    model: nn.Module | None = None

    def __missing__(self, key: str) -> Tensor:
        """Raises KeyError where there is no such packed layer."""
        from bitplan.plans.layers.guards import ReadOnly

        path, _, name = key.rpartition(".")
        if self.model is not None and name == "weight":
            with suppress(AttributeError):
                weight = self.model.get_submodule(path).weight  # that of a LoRA is the weight of the layer inside
                if isinstance(weight, ReadOnly):
                    return weight
        raise KeyError(key)

    def __reduce__(self) -> Any:
        """Copies and files contain a plain state dict."""
        return OrderedDict, (), {"_metadata": getattr(self, "_metadata", None)}, None, iter(self.items())


def answer_weights(model: nn.Module) -> None:
    """From now on `model.state_dict()` is a PackedStateDict."""
    if _answering not in model._state_dict_hooks.values():
        model._register_state_dict_hook(_answering)


def stop_answering(model: nn.Module) -> None:
    """Undoes `answer_weights`."""
    hooks = model._state_dict_hooks
    for key in [key for key, hook in hooks.items() if hook is _answering]:
        del hooks[key]


def _answering(model: nn.Module, state_dict: Any, prefix: str, metadata: Any) -> PackedStateDict:
    """A hook of torch, which takes what it returns for the state dict if the model was asked itself."""
    made = PackedStateDict(state_dict)
    made.model, made._metadata = model, state_dict._metadata
    return made
