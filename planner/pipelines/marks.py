"""A component whose layers are packed says so: to `save_pretrained`, and to what would spoil them in silence."""

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
    """Stands in for a method that cannot be: raises UserError with the reason."""

    reason: str

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        raise UserError(self.reason)


def mark(model: Any, quantizer: Any) -> None:
    """`quantizer` saves `model` from now on."""
    model.hf_quantizer, model.quantization_method = quantizer, quantizer.quantization_config.quant_method
    model.is_quantized = False  # what diffusers refuses then, casts of the float type, packed layers can do
    for name, reason in REFUSED.items():
        if hasattr(type(model), name):
            setattr(model, name, Refusal(reason))


def unmark(model: Any) -> None:
    """Undoes `mark`."""
    del model.hf_quantizer, model.quantization_method, model.is_quantized
    if hasattr(model, "_internal_dict"):  # of diffusers
        kept = {key: value for key, value in model.config.items() if key != "quantization_config"}
        model._internal_dict = type(model._internal_dict)(kept)
    else:
        del model.config.quantization_config
    for name in REFUSED:
        model.__dict__.pop(name, None)


def is_marked(model: Any) -> bool:
    """Whether the layers of `model` are packed by a plan."""
    return getattr(model, "quantization_method", None) == METHOD
