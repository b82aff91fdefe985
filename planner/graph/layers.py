"""The layer graph: which layers a pipeline runs, how data flows between them, and who must agree. Imports no torch.

`bitplan.planner.graph.trace.trace` makes one by running the pipeline once; `to_json` and `from_json` keep it in a
profile.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from math import prod
from typing import Any

import networkx as nx

from bitplan.plans.geometry import Geometry
from bitplan.plans.kinds import KINDS

STATE, TIME, CONDITION = "state", "time", "condition"  # the classes of a component's inputs


# role -> what it means; where several fit, the first is taken
ROLES = {
    "in": "reads the state, and nothing that a layer made of it",
    "out": "writes the component's result, no layer after it",
    "time": "reads the time, perhaps with the condition, and no state",
    "condition": "reads the condition and no state; the time, too, where its tokens attend to each other",
    "cross-attention": "projects q, k or v of an attention whose keys hold no state, or reads its result",
    "self-attention": "projects q, k or v of an attention whose keys hold the state, or reads its result",
    "feed-forward": "any other linear layer that reads the state",
    "convolution": "any other convolution that reads the state",
    "other": "reads constants only, or is of another kind",
}


UNKNOWN = ""  # the role in profiles made before there were any


def component_of(address: str) -> str:
    """The first part of an address."""
    return address.partition(".")[0]


class GraphError(ValueError):
    """A model that cannot be traced, a weight that is no number, or a graph that cannot be read."""


@dataclass(frozen=True)
class LayerCall:
    """One distinct shape at which a layer ran: input and output shapes, multiply-adds of one call (none where rows are
    looked up), and how often."""

    input: tuple[int, ...]
    output: tuple[int, ...]
    macs: int
    count: int


@dataclass(frozen=True)
class Layer:
    """One weight-bearing call site.

    address: `component.path`; aliases: other addresses of the very same module, to be replaced together with it.
    kind: of `bitplan.plans.kinds`. weight: its shape, (out, in) or (out, in / groups, sizes of the kernel...); of an
    embedding
    (rows, features).
    parameters: numbers in the weight and the bias. calls: what was run, in order of first appearance.
    role: a name of `bitplan.planner.graph.layers.ROLES`, or empty where no run told it. held: of a projection of
    nn.MultiheadAttention
    the name of the tensor that its weight is, or is a part of, else empty: no such module is called outside of a plan.
    """

    address: str
    aliases: tuple[str, ...]
    kind: str
    weight: tuple[int, ...]
    bias: bool
    parameters: int
    geometry: Geometry | None
    calls: tuple[LayerCall, ...]
    role: str = UNKNOWN
    held: str = ""

    @property
    def call_count(self) -> int:
        """Calls during the run."""
        return sum(call.count for call in self.calls)

    @property
    def macs(self) -> int:
        """Multiply-adds of all calls during the run."""
        return sum(call.macs * call.count for call in self.calls)


@dataclass(frozen=True)
class ComponentRun:
    """One component in the run. calls: of its forward, as a whole; iterates: whether it read back what it had put out,
    as the model does that a sampler runs in a loop; inputs: (place among its arguments, `state`, `time` or
    `condition`), places of inner constants that change, such as a time given as a number, beginning with `@`."""

    name: str
    calls: int
    iterates: bool
    inputs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class LayerGraph:
    """What one run showed.

    layers: in order of first execution. edges: (A, B) where B read what was computed from A's output with no other
    layer between; a run of several denoising steps closes cycles. shared_inputs: layers that read the very same
    tensor. tied: layers whose weights are the same memory. unused: addresses that the run never called, or that cannot
    be planned, for which reasons holds (address, why).
    parts: the components, in order of their first call; none where no run told.
    """

    layers: tuple[Layer, ...]
    edges: tuple[tuple[str, str], ...]
    shared_inputs: tuple[tuple[str, ...], ...]
    tied: tuple[tuple[str, ...], ...]
    unused: tuple[str, ...]
    parts: tuple[ComponentRun, ...] = ()
    reasons: tuple[tuple[str, str], ...] = ()

    @cached_property
    def flow(self) -> nx.DiGraph:
        """The edges as a graph whose nodes, in order of first execution, hold their `Layer` as attribute `layer`."""
        graph = nx.DiGraph()
        graph.add_nodes_from((layer.address, {"layer": layer}) for layer in self.layers)
        graph.add_edges_from(self.edges)
        return graph

    @cached_property
    def by_address(self) -> dict[str, Layer]:
        """Layers by their address, in order of first execution."""
        return {layer.address: layer for layer in self.layers}


def components_of(graph: LayerGraph) -> tuple[str, ...]:
    """The components that hold the layers, in order of first execution."""
    return tuple(dict.fromkeys(component_of(layer.address) for layer in graph.layers))


def total_parameters(graph: LayerGraph) -> int:
    """Numbers in the weights and biases of all layers; a tied weight counts once."""
    again = sum(prod(graph.by_address[name].weight) for names in graph.tied for name in names[1:])
    return sum(layer.parameters for layer in graph.layers) - again


def total_macs(graph: LayerGraph) -> int:
    """Multiply-adds of all layers in the whole run."""
    return sum(layer.macs for layer in graph.layers)


def architecture_fingerprint(graph: LayerGraph) -> str:
    """sha256 (hex) over addresses, kinds, weight shapes, biases, geometry and ties: equal for fine-tunes of one model.

    What depends on the run (call counts, input shapes) and the order of execution stay out.
    """
    layers = [
        [layer.address, layer.kind, layer.weight, layer.bias, layer.geometry and layer.geometry.to_json()]
        for layer in sorted(graph.layers, key=lambda layer: layer.address)
    ]
    text = json.dumps([layers, sorted(map(sorted, graph.tied))], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def to_json(graph: LayerGraph) -> dict[str, Any]:
    """The graph as what `json.dumps` takes; what there is none of is left out, as older profiles have it: reasons, and
    what a weight is held as."""
    found = {name: value for name, value in asdict(graph).items() if value or name != "reasons"}
    return found | {"layers": tuple(_entry(layer) for layer in graph.layers)}


def _entry(layer: Layer) -> dict[str, Any]:
    facts = asdict(layer) | {"geometry": layer.geometry and layer.geometry.to_json()}
    return {name: value for name, value in facts.items() if value or name != "held"}


def from_json(data: Mapping[str, Any]) -> LayerGraph:
    """The graph that `to_json` wrote, equal to the original. Raises GraphError when a part is missing or unknown."""
    try:
        graph = LayerGraph(
            layers=tuple(_layer(entry) for entry in data["layers"]),
            edges=tuple((a, b) for a, b in data["edges"]),
            shared_inputs=tuple(map(tuple, data["shared_inputs"])),
            tied=tuple(map(tuple, data["tied"])),
            unused=tuple(data["unused"]),
            parts=tuple(
                ComponentRun(p["name"], p["calls"], p["iterates"], tuple(map(tuple, p["inputs"])))
                for p in data.get("parts", ())
            ),
            reasons=tuple((address, why) for address, why in data.get("reasons", ())),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise GraphError(f"this is no layer graph ({type(error).__name__}: {error}); profile the model again") from None
    named = {name for part in (graph.edges, graph.shared_inputs, graph.tied) for names in part for name in names}
    unknown = sorted(named - set(graph.by_address))
    if unknown or len(graph.by_address) < len(graph.layers):
        problem = f"{len(unknown)} unknown layers, such as {unknown[0]}" if unknown else "a layer twice"
        raise GraphError(f"the layer graph names {problem}; profile the model again")
    return graph


def _part(entry: Mapping[str, Any]) -> ComponentRun:
    inputs = tuple((place, kind) for place, kind in entry["inputs"])
    return ComponentRun(entry["name"], entry["calls"], entry["iterates"], inputs)


def _layer(entry: Mapping[str, Any]) -> Layer:
    fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()}
    if fields["kind"] not in KINDS:
        raise ValueError(f"kind {fields['kind']!r} is not one of {', '.join(KINDS)}")
    if fields.get("role", UNKNOWN) not in (UNKNOWN, *ROLES):
        raise ValueError(f"role {fields['role']!r} is not one of {', '.join(ROLES)}")
    fields["calls"] = tuple(
        LayerCall(tuple(c["input"]), tuple(c["output"]), c["macs"], c["count"]) for c in fields["calls"]
    )
    if fields["geometry"] is not None:
        plain: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in fields["geometry"].items()}
        fields["geometry"] = Geometry(fields["weight"][2:], **plain)
    return Layer(**fields)


def blocks_of(layers: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Layers by their block: component and the first part of the path, with its index where it has one."""
    blocks: dict[str, tuple[str, ...]] = {}
    for address in layers:
        parts = address.split(".")
        block = ".".join(parts[:3] if len(parts) > 3 and parts[2].isdigit() else parts[:2])
        blocks[block] = (*blocks.get(block, ()), address)
    return blocks
