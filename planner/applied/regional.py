"""Lets `compile_repeated_blocks` of diffusers make as many graphs as a packed model has kinds of blocks.

Blocks share a graph where their packed layers have the same schemes. torch allows 8 graphs of one function; the blocks
of a mixed plan beyond them would run uncompiled, or fail with `fullgraph=True`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from bitplan.planner.errors import UserError

LIMIT = "recompile_limit"


def compile_blocks(method: Callable[..., Any], model: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Calls the `compile_repeated_blocks` of a model, as a wrapper of `wrapt`, with a limit that suffices unless the
    caller gives one: torch's own for each kind of blocks. Raises UserError where torch takes no limit and needs one."""
    import torch

    kinds = kinds_of_blocks(model)
    if kinds < 2 or LIMIT in options:
        return method(*args, **options)
    allowed = torch._dynamo.config.recompile_limit
    if LIMIT in inspect.signature(torch.compile).parameters:
        return method(*args, **options, **{LIMIT: kinds * allowed})
    if kinds > allowed:
        raise UserError(f"this model has {kinds} kinds of blocks, and torch compiles {allowed}; set "
                        f"torch._dynamo.config.recompile_limit = {kinds * allowed} first")  # fmt: skip
    return method(*args, **options)


def kinds_of_blocks(model: Any) -> int:
    """How many kinds of repeated blocks a model has by their classes and the schemes of their layers; 0 if none of its
    layers is packed."""
    from bitplan.plans.layers.unpacked import has_packed, is_packed

    if not has_packed(model):
        return 0
    repeated = getattr(model, "_repeated_blocks", None) or ()
    blocks = [module for module in model.modules() if type(module).__name__ in repeated]
    return len({
        (type(block), tuple((path, str(layer.scheme)) for path, layer in block.named_modules() if is_packed(layer)))
        for block in blocks
    })  # fmt: skip
