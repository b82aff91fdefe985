"""Refuses a plan whose layers an attention of diffusers no longer calls, since its projections are fused."""

from __future__ import annotations

from collections.abc import Mapping

from diffusers.models.attention_processor import Attention
from torch import nn

from bitplan.plans.plan import PlanError
from bitplan.plans.scheme import KEEP

REPLACES = {  # the fused layer of an attention -> the layers that are not called while it is there
    "to_qkv": ("to_q", "to_k", "to_v"),
    "to_kv": ("to_k", "to_v"),
    "to_added_qkv": ("add_q_proj", "add_k_proj", "add_v_proj"),
}


def check_fused(schemes: Mapping[str, str], parts: Mapping[str, nn.Module]) -> None:
    """Raises PlanError for a layer that the plan packs and whose attention has a fused layer in its place.

    schemes: layer address -> the text of its scheme; parts: component -> module.
    """
    for name, part in parts.items():
        for path, module in part.named_modules(prefix=name):
            if _calls_fused(module):
                _check_attention(schemes, path, module)


def _calls_fused(module: nn.Module) -> bool:
    """Attentions of the class `Attention` keep the flag when they are unfused, and change their processor alone."""
    is_fused = getattr(module, "fused_projections", False) is True
    return is_fused and (not isinstance(module, Attention) or type(module.processor).__name__.startswith("Fused"))


def _check_attention(schemes: Mapping[str, str], path: str, module: nn.Module) -> None:
    for fused, replaced in REPLACES.items():
        packed = [child for child in replaced if schemes.get(f"{path}.{child}", str(KEEP)) != str(KEEP)]
        if packed and hasattr(module, fused) and f"{path}.{fused}" not in schemes:
            raise PlanError(f"{path}.{packed[0]} is not called, since projections of {path} are fused into {fused}; "
                            "call unfuse_qkv_projections() first, or profile the fused pipeline")  # fmt: skip
