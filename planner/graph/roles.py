"""What each layer is for, told from the flow of one run and never from names. Imports no torch.

`bitplan.planner.graph.visits` says which inputs of a component are its state, time and condition; a layer's role
follows from which
of them it reads, what lies between, and which attentions it feeds or reads. Joint attention, whose keys come from the
condition and from the state, is self-attention, as is what it does to the condition's tokens.
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
    """What one layer read in all its calls: inputs of its component, those of them without a layer between, layers
    without an attention between, and attentions. positions: whether it read more than one vector an example; writes:
    whether its output is in a result of its component."""

    sources: set[Source] = field(default_factory=set)
    raw: set[Source] = field(default_factory=set)
    direct: set[str] = field(default_factory=set)
    attended: set[int] = field(default_factory=set)
    positions: bool = False
    writes: bool = False


@dataclass(frozen=True)
class RunFacts:
    """All that roles are told from. uses, kinds: by address; classes: component -> place -> class."""

    uses: Mapping[str, LayerInputs]
    kinds: Mapping[str, str]
    attentions: Sequence[AttentionCall]
    classes: Mapping[str, Mapping[str, str]]

    def holds(self, component: str, sources: Iterable[Source]) -> set[str]:
        """The classes among the sources that are inputs of the component."""
        mine = self.classes.get(component, {})
        return {mine[place] for owner, place in sources if owner == component and place in mine}

    def reads(self, address: str) -> set[str]:
        """The classes that a layer reads."""
        return self.holds(component_of(address), self.uses[address].sources)


def roles_of(scene: RunFacts) -> dict[str, str]:
    """The role of each layer."""
    inner = _read_directly(scene)
    attending = _attending(scene, inner)
    return {address: _role(scene, address, attending.get(address, set()), inner) for address in scene.uses}


def _role(scene: RunFacts, address: str, attending: set[str], inner: set[str]) -> str:
    use, reads, kind = scene.uses[address], scene.reads(address), scene.kinds[address]
    if STATE in scene.holds(component_of(address), use.raw) and not _is_behind(scene, address):
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


def _is_behind(scene: RunFacts, address: str) -> bool:
    """Whether the layer also reads what another layer made of the state: a branch's result, added further down."""
    return any(
        other in scene.uses and STATE in scene.reads(other)
        for other in scene.uses[address].direct
        if component_of(other) == component_of(address)
    )


def _has_attended(use: LayerInputs) -> bool:
    """Whether it reads tokens that an attention mixed; one vector an example is modulation, pooled from whatever."""
    return use.positions and any(owner == "" for owner, _ in use.sources)


def _read_directly(scene: RunFacts) -> set[str]:
    """The layers that another layer of their component reads with no attention between."""
    return {
        other
        for address, use in scene.uses.items()
        for other in use.direct
        if component_of(other) == component_of(address)
    }


def _attending(scene: RunFacts, inner: set[str]) -> dict[str, set[str]]:
    """Layer -> the attention roles that it has.

    Projections of q, k and v are read by attentions alone: without projections, an attention reads the sums of all
    layers before it, which others read, too.
    """
    found: dict[str, set[str]] = {}
    readers: dict[int, list[str]] = {}
    for address, use in scene.uses.items():
        for number in use.attended:
            readers.setdefault(number, []).append(address)
    for number, attention in enumerate(scene.attentions):
        q, k, v = (
            {layer for layer in operand.layers - inner if layer in scene.uses}
            for operand in (attention.query, attention.key, attention.value)
        )
        if not q | k | v:
            continue
        component = component_of(min(q | k | v))
        before = {layer for each in q | k | v for layer in scene.uses[each].direct}
        # what reads the attention's result along with what the projections read is behind a residual sum
        after = {layer for layer in readers.get(number, ()) if not scene.uses[layer].direct & before}
        keys, queries = (scene.holds(component, o.sources) for o in (attention.key, attention.query))
        if STATE not in keys | queries:
            continue  # within the condition, or between constants
        role = "self-attention" if STATE in keys else "cross-attention"
        for layer in q | k | v | after:
            added = layer in k | v and STATE not in scene.reads(layer) and all(STATE in scene.reads(p) for p in q)
            found.setdefault(layer, set()).add("cross-attention" if added else role)
    return found
