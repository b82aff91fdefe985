"""Derives the role of each layer from the data flow of one run, never from names. Imports no torch.

`bitplan.planner.graph.visits` classifies the inputs of a component as state, time and condition. A layer's role depends
on which of them it reads, on the layers between, and on the attentions that it feeds or reads. Joint attention, whose
keys come from condition and state, is self-attention, also for the tokens of the condition.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bitplan.planner.graph.layers import CONDITION, ROLES, STATE, TIME, component_of

if TYPE_CHECKING:
    from bitplan.planner.graph.flow import AttentionCall, Source


@dataclass
class LayerInputs:
    """What one layer read in all its calls.

    Attributes:
        sources: inputs of components.
        raw: the sources without a layer between.
        direct: layers without another layer or an attention between.
        attended: numbers of attentions without a layer between.
        positions: whether it read more than one vector a sample.
        writes: whether a result of its component was computed from its output without another layer between.
    """

    sources: set[Source] = field(default_factory=set)
    raw: set[Source] = field(default_factory=set)
    direct: set[str] = field(default_factory=set)
    attended: set[int] = field(default_factory=set)
    positions: bool = False
    writes: bool = False


@dataclass(frozen=True)
class RunFacts:
    """The facts that roles are derived from.

    Attributes:
        uses: address -> what the layer read.
        kinds: address -> kind of the layer.
        attentions: the attentions of the run, by number.
        classes: component -> place -> class of the input.
    """

    uses: Mapping[str, LayerInputs]
    kinds: Mapping[str, str]
    attentions: Sequence[AttentionCall]
    classes: Mapping[str, Mapping[str, str]]

    def holds(self, component: str, sources: Iterable[Source]) -> set[str]:
        """The classes among the sources that are inputs of the component."""
        classes = self.classes.get(component, {})
        return {classes[place] for owner, place in sources if owner == component and place in classes}

    def reads(self, address: str) -> set[str]:
        """The classes that a layer reads."""
        return self.holds(component_of(address), self.uses[address].sources)


def roles_of(facts: RunFacts) -> dict[str, str]:
    """The role of each layer."""
    inner = _read_directly(facts)
    attending = _attending(facts, inner)
    return {address: _role(facts, address, attending.get(address, set()), inner) for address in facts.uses}


def _role(facts: RunFacts, address: str, attending: set[str], inner: set[str]) -> str:
    use, reads, kind = facts.uses[address], facts.reads(address), facts.kinds[address]
    if STATE in facts.holds(component_of(address), use.raw) and not _is_behind(facts, address):
        return "in"
    if use.writes and address not in inner:
        return "out"
    if attending:
        return min(attending, key=list(ROLES).index)
    if STATE in reads:
        return "feed-forward" if kind == "linear" else "convolution" if kind.startswith("conv") else "other"
    if TIME in reads and not (CONDITION in reads and _has_attended(use)):
        return "time"
    return "condition" if CONDITION in reads else "other"


def _is_behind(facts: RunFacts, address: str) -> bool:
    """Whether the layer also reads what another layer computed from the state, such as an added branch."""
    return any(
        other in facts.uses and STATE in facts.reads(other)
        for other in facts.uses[address].direct
        if component_of(other) == component_of(address)
    )


def _has_attended(use: LayerInputs) -> bool:
    """Whether it reads tokens that an attention mixed; one vector a sample is a pooled modulation."""
    return use.positions and any(owner == "" for owner, _ in use.sources)


def _read_directly(facts: RunFacts) -> set[str]:
    """The layers whose output another layer of their component reads without an attention between."""
    return {
        other
        for address, use in facts.uses.items()
        for other in use.direct
        if component_of(other) == component_of(address)
    }


def _attending(facts: RunFacts, inner: set[str]) -> dict[str, set[str]]:
    """Layer -> its attention roles.

    Only attentions read projections of q, k and v. An attention without projections reads sums of earlier layers, which
    other layers read, too.
    """
    roles: dict[str, set[str]] = {}
    readers: dict[int, list[str]] = {}
    for address, use in facts.uses.items():
        for number in use.attended:
            readers.setdefault(number, []).append(address)
    for number, attention in enumerate(facts.attentions):
        q, k, v = (
            {layer for layer in operand.layers - inner if layer in facts.uses}
            for operand in (attention.query, attention.key, attention.value)
        )
        if not q | k | v:
            continue
        component = component_of(min(q | k | v))
        before = {layer for each in q | k | v for layer in facts.uses[each].direct}
        # a layer that reads both the attention's result and the projections' inputs comes after a residual sum
        after = {layer for layer in readers.get(number, ()) if not facts.uses[layer].direct & before}
        keys, queries = (facts.holds(component, o.sources) for o in (attention.key, attention.query))
        if STATE not in keys | queries:
            continue  # within the condition, or between constants
        role = "self-attention" if STATE in keys else "cross-attention"
        for layer in q | k | v | after:
            added = layer in k | v and STATE not in facts.reads(layer) and all(STATE in facts.reads(p) for p in q)
            roles.setdefault(layer, set()).add("cross-attention" if added else role)
    return roles
