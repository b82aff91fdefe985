"""The layer graph: the layers that a pipeline runs, the data flow between them, and their constraints.

`bitplan.planner.graph.trace.trace` makes one by running the pipeline once; `to_json` and `from_json` convert it for a
profile. Imports no torch.
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


# role -> its meaning; if several apply, the first one counts
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


UNKNOWN = ""  # the role in profiles of versions without roles


def component_of(address: str) -> str:
    """The first part of an address."""
    return address.partition(".")[0]


class GraphError(ValueError):
    """A model that cannot be traced, a weight that is not finite, or a graph that cannot be read."""


@dataclass(frozen=True)
class LayerCall:
    """All calls of a layer with one input shape and one output shape.

    Attributes:
        input, output: the shapes.
        macs: multiply-adds of one call; 0 for an embedding.
        count: the number of calls.
    """

    input: tuple[int, ...]
    output: tuple[int, ...]
    macs: int
    count: int


@dataclass(frozen=True)
class Layer:
    """One module with a weight.

    Attributes:
        address: `component.path`.
        aliases: other addresses of the same module, which are replaced together.
        kind: a name of `bitplan.plans.kinds.KINDS`.
        weight: its shape, (out, in), (out, in / groups, kernel sizes...) or, of an embedding, (rows, features).
        bias: whether it has a bias.
        parameters: numbers in the weight and the bias.
        geometry: of a convolution, else None.
        calls: its calls by shape in `runs` runs, in order of first appearance.
        role: a name of `ROLES`, or empty if it is unknown.
        held: of a projection of nn.MultiheadAttention, the name of the tensor that holds its weight; else empty.
        runs: the number of conditions that `calls` are of; 1 where each condition makes as many calls as the first one.
        reached: how many of them call it.
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
    runs: int = 1
    reached: int = 1

    @property
    def call_count(self) -> float:
        """The number of calls in a run, the mean over conditions; an integer if all make as many."""
        total = sum(call.count for call in self.calls)
        return total / self.runs if total % self.runs else total // self.runs

    @property
    def macs(self) -> int:
        """Multiply-adds of all calls in a run, the mean over conditions."""
        return round(sum(call.macs * call.count for call in self.calls) / self.runs)

    @property
    def share(self) -> str:
        """On how many conditions its losses rest, such as `1 of 32 conditions`; empty if they are all."""
        return f"{self.reached} of {self.runs} conditions" if self.reached < self.runs else ""


@dataclass(frozen=True)
class ComponentRun:
    """One component in the run.

    Attributes:
        name: its name.
        calls: the number of calls of its forward.
        iterates: whether it read its own earlier output, as a model does that a sampler runs in a loop.
        inputs: (place among its arguments, `state`, `time` or `condition`); places of inner constants that change, such
            as a time that is a Python number, begin with `@`.
    """

    name: str
    calls: int
    iterates: bool
    inputs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class LayerGraph:
    """The layers of one run and their relations.

    Attributes:
        layers: in order of first execution.
        edges: (A, B) if B read data computed from A's output without another layer between; several denoising steps
            close cycles.
        shared_inputs: groups of layers that read the same tensor.
        tied: groups of layers whose weights share memory.
        unused: addresses of layers that the run never called or that cannot be planned.
        parts: the components, in order of their first call; empty if no run was made.
        reasons: (address, why it cannot be planned).
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
    """The components of the layers, in order of first execution."""
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

    It does not depend on the order of execution, call counts or input shapes.
    """
    layers = [
        [layer.address, layer.kind, layer.weight, layer.bias, layer.geometry and layer.geometry.to_json()]
        for layer in sorted(graph.layers, key=lambda layer: layer.address)
    ]
    text = json.dumps([layers, sorted(map(sorted, graph.tied))], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def to_json(graph: LayerGraph) -> dict[str, Any]:
    """The graph as `json.dumps` takes it. Empty `reasons` and `held`, and a single run, are left out, as in older
    profiles."""
    fields = {name: value for name, value in asdict(graph).items() if value or name != "reasons"}
    return fields | {"layers": tuple(_entry(layer) for layer in graph.layers)}


def _entry(layer: Layer) -> dict[str, Any]:
    facts = asdict(layer) | {"geometry": layer.geometry and layer.geometry.to_json()}
    empty = {"held"} if not layer.held else set()
    single = {"runs", "reached"} if layer.runs == 1 else set()
    return {name: value for name, value in facts.items() if name not in empty | single}


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
        raise GraphError(
            f"this is not a layer graph ({type(error).__name__}: {error}); profile the model again"
        ) from None
    named = {name for part in (graph.edges, graph.shared_inputs, graph.tied) for names in part for name in names}
    unknown = sorted(named - set(graph.by_address))
    if unknown or len(graph.by_address) < len(graph.layers):
        problem = f"{len(unknown)} unknown layers, such as {unknown[0]}" if unknown else "a layer twice"
        raise GraphError(f"the layer graph names {problem}; profile the model again")
    return graph


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
    """Layers by block: the component and the first part of the path, with its index if it has one."""
    blocks: dict[str, tuple[str, ...]] = {}
    for address in layers:
        parts = address.split(".")
        block = ".".join(parts[:3] if len(parts) > 3 and parts[2].isdigit() else parts[:2])
        blocks[block] = (*blocks.get(block, ()), address)
    return blocks
