"""Refuses FreeNoise on packed motion modules before anything is changed.

Turning it on or off puts other blocks in their place and copies the weights by name, which fails at the first packed
layer, when the pipeline says already that it is on, or off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bitplan.planner.errors import UserError


def check_turning(turn: Callable[..., Any], pipe: Any, args: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
    """A wrapper of `enable_free_noise` and `disable_free_noise`. Raises UserError if it would replace packed blocks."""
    from bitplan.plans.layers.unpacked import has_packed

    on = turn.__name__.startswith("enable")
    motion = (getattr(module, "motion_modules", None) for module in pipe.unet.modules())
    if on != pipe.free_noise_enabled and any(map(has_packed, motion)):
        raise UserError("FreeNoise would put float blocks in place of packed motion modules; call "
                        f"{turn.__name__} on the float pipeline, then bitplan.apply")  # fmt: skip
    return turn(*args, **options)
