"""Marks components with packed layers: they can be saved, and refuse methods that would break them silently."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bitplan.planner.errors import UserError

METHOD = "bitplan"  # `quant_method` in a component's config.json


REFUSED = {
    "fuse_lora": "a LoRA cannot be fused into packed weights; keep it loaded, or fuse it into the float pipeline and "
    "profile that",
    "fuse_qkv_projections": "packed projections cannot be fused: the fused layer would be float, larger and no longer "
    "as planned; fuse those of the float pipeline and profile that",
    "enable_layerwise_casting": "packed layers are smaller than what layerwise casting would store; leave it off",
}  # fmt: skip


@dataclass(frozen=True)
class Refusal:
    """Replaces a method that packed layers cannot support: raises UserError with the reason."""

    reason: str

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        raise UserError(self.reason)


def mark(model: Any, quantizer: Any) -> None:
    """Marks the model as packed, to be saved by the quantizer."""
    model.hf_quantizer, model.quantization_method = quantizer, quantizer.quantization_config.quant_method
    model.is_quantized = False  # diffusers would refuse casts of the float type, which packed layers support
    for name, reason in REFUSED.items():
        if hasattr(type(model), name):
            setattr(model, name, Refusal(reason))


def unmark(model: Any) -> None:
    """Undoes `mark`."""
    del model.hf_quantizer, model.quantization_method, model.is_quantized
    if hasattr(model, "_internal_dict"):  # a model of diffusers
        config = {key: value for key, value in model.config.items() if key != "quantization_config"}
        model._internal_dict = type(model._internal_dict)(config)
    else:
        del model.config.quantization_config
    for name in REFUSED:
        model.__dict__.pop(name, None)


def is_marked(model: Any) -> bool:
    """Whether the layers of `model` are packed by a plan."""
    return getattr(model, "quantization_method", None) == METHOD
