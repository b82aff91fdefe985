"""Refuses to fuse LoRAs into packed components before the first layer of any component is fused.

`fuse_lora` of diffusers fuses one component after the other, and the layers of a text encoder one after the other. A
packed layer refuses only when its own turn comes; by then the LoRA would be in the float layers before it for good.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bitplan.planner.errors import UserError
from bitplan.planner.pipelines.marks import REFUSED, Refusal, is_marked

FUSE = "fuse_lora"


def check_fusing(fuse: Callable[..., Any], pipe: Any, args: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
    """A wrapper of `fuse_lora(components, ...)` of pipelines. Raises UserError if one of the components is packed."""
    for name in (args[0] if args else options.get("components")) or ():
        if _refuses(getattr(pipe, name, None)):
            raise UserError(f"{name} is packed: {REFUSED[FUSE]}")
    return fuse(*args, **options)


def _refuses(model: Any) -> bool:
    """Models of transformers have no method of that name; without a LoRA there is nothing to fuse in them."""
    return isinstance(getattr(model, FUSE, None), Refusal) or (is_marked(model) and hasattr(model, "peft_config"))
