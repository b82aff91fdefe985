"""Exports plans as configurations of other tools: the table of targets. Imports neither torch nor the tools.

A target is a module here and a line in `TARGETS`. The module has `TAKES`, the terms of schemes that it can express (all
others are declined by name); `refuses(scheme, layer)`, which returns why it cannot express a combination of these, or
None; and `text(part)`, which returns the contents of one component's file (see `base.py`).
"""

from __future__ import annotations

from pathlib import Path

from bitplan.planner.errors import UserError  # noqa: F401
from bitplan.planner.interop.targets import gguf, modelopt, sdnq, torchao
from bitplan.planner.interop.targets.base import (
    Export,  # noqa: F401
    Exports,
    Target,  # noqa: F401
    export_files,  # noqa: F401
)
from bitplan.planner.interop.targets.model import read_model  # noqa: F401
from bitplan.planner.texts import nearest
from bitplan.plans.plan import Plan  # noqa: F401
from bitplan.plans.terms import Table

_TABLE = (
    Target("torchao", "diffusers' TorchAoConfig as JSON: 8-bit weights of linear layers", torchao.TAKES,
           torchao.refuses, torchao.text, torchao.LOST, torchao.USE),
    Target("sdnq", "sdnq's SDNQConfig as JSON: 2 to 8 bits, linear layers and convolutions", sdnq.TAKES,
           sdnq.refuses, sdnq.text, sdnq.LOST, sdnq.USE),
    Target("modelopt", "the configuration of modelopt's mtq.quantize as YAML: simulated, any bits", modelopt.TAKES,
           modelopt.refuses, modelopt.text, modelopt.LOST, modelopt.USE),
    Target("gguf-recipe", "a type for each tensor, for llama-quantize and stable-diffusion.cpp: weights of linear "
           "layers", gguf.TAKES, gguf.refuses, gguf.text, gguf.LOST, gguf.USE),
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


def export_plan(plan: Plan, to: str, out: Path, model: str | None = None, approximate: bool = False) -> Exports:
    """Writes the plan for the tool `to`: the file `out`, or `out` with -COMPONENT for each of several components.

    model: see `read_model`; approximate: use the nearest scheme that the tool can express, and list the changes. Raises
    UserError with the number of layers that the tool cannot express, PlanError for another model's layers.
    """
    target = target_named(to)
    return export_files(plan, read_model(plan, model), target, out, approximate)
