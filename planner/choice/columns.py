"""Checks the names of losses and costs in a request, and says what to write for a name that is none.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable

from bitplan.planner.choice.evidence import KEEP, Evidence, members_of
from bitplan.planner.errors import UserError
from bitplan.planner.texts import nearest_or_all
from bitplan.planner.units import COSTS
from bitplan.sensitivity.metrics import METRICS
from bitplan.sensitivity.table import FAMILIES

_COSTS = {  # a word for a cost -> the option that limits it, and the name of its sum in an objective
    "memory": ("--memory 35%", "bytes"), "size": ("--memory 35%", "bytes"), "bits": ("--bits 4.5", "bytes"),
    "speed": ("--latency 80%", "ms"), "latency": ("--latency 80%", "ms"), "time": ("--latency 80%", "ms"),
}  # fmt: skip


def check_known(evidence: Evidence, names: Iterable[str], optional: Iterable[str] = ()) -> None:
    """Raise UserError for a name that is no cost, no metric that was measured for all layers, and no family.

    optional: names of which those of families without a measurement are left out.
    """
    for name in (*names, *optional):
        if why := _unknown(evidence, name):
            raise UserError(why)
    for name in names:
        if name in FAMILIES and not members_of(evidence, name):
            raise UserError(f"the profile measured no metric of {name}; it has {', '.join(evidence.metrics)}")


def _unknown(evidence: Evidence, name: str) -> str | None:
    """Why no plan can be made by that name, or None."""
    known = (*COSTS, *evidence.metrics, *FAMILIES)
    if name in known:
        return None
    if name in evidence.partly:
        pairs = sum(scheme != KEEP for _, scheme in evidence.size)
        return (f"{name} was measured for {evidence.partly[name]} of {pairs} (layer, scheme): it has no probe; profile "
                "with --method exhaustive to plan by it")  # fmt: skip
    if name in _COSTS:
        option, column = _COSTS[name]
        return f"{name} is a cost, not a loss; limit it by {option}, or plan for it by --objective {column}=1"
    if name in METRICS and METRICS[name].additive:
        return f"{name} was not measured in this profile; profile with --metric {name} into another --out"
    if name in METRICS:
        return f"{name} is about whole sets of outputs, not layers; measure it by `bitplan evaluate --metric {name}`"
    return f"no loss is named {name!r}{nearest_or_all(name, known)}"
