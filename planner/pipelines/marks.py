"""Marks components with packed layers: they can be saved, and refuse methods that would break them silently."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bitplan.planner.errors import UserError
from bitplan.plans.layers.lookups import answer_weights, stop_answering

METHOD = "bitplan"  # `quant_method` in a component's config.json
QUANTIZATION = "quantization_config"  # the key of a component's config


REFUSED = {
    "fuse_lora": "a LoRA cannot be fused into packed weights; keep it loaded, or fuse it into the float pipeline and "
    "profile that",
    "fuse_qkv_projections": "packed projections cannot be fused: the fused layer would be float, larger and no longer "
    "as planned; fuse those of the float pipeline, profile that, and apply its plan after each load",
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
    answer_weights(model)


def unmark(model: Any) -> None:
    """Undoes `mark`."""
    set_quantization_config(model, None)
    stop_answering(model)
    for name in ("hf_quantizer", "is_quantized", *REFUSED, "quantization_method"):
        vars(model).pop(name, None)


def set_quantization_config(model: Any, config: Any) -> None:
    """Puts the `quantization_config` into the model's config, or removes it for None.

    A config of diffusers cannot be changed: another object takes its place, with its items and with the attributes that
    were set on it since, such as those of IP-Adapters.
    """
    if not hasattr(model, "_internal_dict"):  # a model of transformers
        if config is not None:
            model.config.quantization_config = config
        elif QUANTIZATION in vars(model.config):
            del model.config.quantization_config
        return
    own = model._internal_dict
    kept = {key: value for key, value in own.items() if key != QUANTIZATION}
    model._internal_dict = type(own)(kept if config is None else {**kept, QUANTIZATION: config})
    vars(model._internal_dict).update({key: value for key, value in vars(own).items() if key != QUANTIZATION})


def is_marked(model: Any) -> bool:
    """Whether the layers of `model` are packed by a plan."""
    return getattr(model, "quantization_method", None) == METHOD
