"""The tools that plans are exported to: the table of targets. Imports neither torch nor the tools.

A target is a module here and a line in `TARGETS`. The module has `TAKES`, the terms of schemes that it can express (all
others are declined by name); `MENU`, the schemes that are measured for it by default; `refuses(scheme, layer)`, which
returns why it cannot express a combination of these terms, or None; `stored(scheme, layer, itemsize)`, the bytes in
which it holds a layer; and `text(part)`, which returns the contents of one component's file (see `base.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

from bitplan.planner.errors import UserError
from bitplan.planner.targets import gguf, modelopt, sdnq, torchao
from bitplan.planner.targets.base import Target
from bitplan.planner.texts import nearest
from bitplan.plans.scheme import KEEP, parse_scheme
from bitplan.plans.terms import Table

_TABLE = (
    Target("torchao", "diffusers' TorchAoConfig as JSON: 8-bit weights of linear layers", torchao.TAKES, torchao.MENU,
           torchao.refuses, torchao.stored, torchao.text, torchao.LOST, torchao.USE),
    Target("sdnq", "sdnq's SDNQConfig as JSON: 2 to 8 bits, linear layers and convolutions", sdnq.TAKES, sdnq.MENU,
           sdnq.refuses, sdnq.stored, sdnq.text, sdnq.LOST, sdnq.USE),
    Target("modelopt", "the configuration of modelopt's mtq.quantize as YAML: simulated, any bits", modelopt.TAKES,
           modelopt.MENU, modelopt.refuses, None, modelopt.text, modelopt.LOST, modelopt.USE),
    Target("gguf-recipe", "a type for each tensor, for llama-quantize and stable-diffusion.cpp: weights of linear "
           "layers", gguf.TAKES, gguf.MENU, gguf.refuses, gguf.stored, gguf.text, gguf.LOST, gguf.USE),
)  # fmt: skip


TARGETS: Table[Target] = Table("target")
register, unregister = TARGETS.register, TARGETS.unregister

for _target in _TABLE:
    register(_target)


def target_named(name: str) -> Target:
    """Returns the target of that name. Raises UserError with the nearest name."""
    if name not in TARGETS:
        raise UserError(f"there is no target {name!r}{nearest(name, TARGETS)} (targets: {', '.join(TARGETS)})")
    return TARGETS[name]


def schemes_for(target: str | None, schemes: Sequence[str] | None, default: Sequence[str]) -> tuple[str, ...]:
    """The schemes to measure: those that were asked for, else the menu of the target, else the default ones.

    Raises UserError for a scheme that the target can load in no layer.
    """
    if target is None:
        return tuple(default if schemes is None else schemes)
    line = target_named(target)
    for scheme in schemes or ():
        if (parsed := parse_scheme(scheme)) != KEEP and (reason := line.takes.declines(parsed)):
            raise UserError(f"{target} cannot load {scheme}: it {reason}; leave it out of --schemes")
    return line.menu if schemes is None else tuple(schemes)
