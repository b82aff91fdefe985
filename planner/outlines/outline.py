"""The outline of a model: its layers, and the multiply-adds and bytes of one call, with their text and JSON forms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, groupby
from typing import Any

from bitplan.planner.graph.layers import (
    Layer,
    LayerGraph,
    architecture_fingerprint,
    to_json,
    total_macs,
    total_parameters,
)
from bitplan.planner.outlines.inputs import Latents
from bitplan.planner.texts import table
from bitplan.planner.units import show_bytes

_SHOWN = 5  # number of largest layers in the text


@dataclass(frozen=True)
class Size:
    """The size of one call; None for the usual value of the model's pipelines.

    Attributes:
        width: of the image in pixels.
        height: of the image in pixels.
        frames: of the video.
        tokens: of the text.
        batch: number of images; guidance needs two for each.
    """

    width: int | None = None
    height: int | None = None
    frames: int | None = None
    tokens: int | None = None
    batch: int = 1


@dataclass(frozen=True)
class Component:
    """One component of a pipeline.

    Attributes:
        component: its name.
        kind: the name of its class.
        parameters: number of values in all its parameters.
        graph: its layers, with the calls of one run where it ran.
        call: the size of that run; None where it did not run.
        why: why it did not run.
    """

    component: str
    kind: str
    parameters: int
    graph: LayerGraph
    call: Latents | None
    why: str | None = None

    @property
    def macs(self) -> int:
        """Multiply-adds of the layers in one call; 0 where it did not run."""
        return total_macs(self.graph)

    def to_json(self) -> dict[str, Any]:
        """Returns data for `json.dumps`, without the graph."""
        return {
            "component": self.component, "class": self.kind, "parameters": self.parameters,
            "layers": dict(Counter(layer.kind for layer in self.graph.layers)),
            "macs": self.macs if self.call else None, "call": self.call and vars(self.call), "why": self.why,
            "unused": list(self.graph.unused),
        }  # fmt: skip


@dataclass(frozen=True)
class StoredBytes:
    """The bytes of a model with all layers at one scheme or float type.

    Attributes:
        scheme: the scheme's text form or the name of the float type.
        weights: bytes of the layers' weights as stored.
        whole: `weights` and all other parameters, in bfloat16 beside a scheme.
        kept: number of layers that the scheme does not fit.
    """

    scheme: str
    weights: int
    whole: int
    kept: int


@dataclass(frozen=True)
class Outline:
    """The components of one configuration.

    Attributes:
        name: the configuration's path.
        parts: the components.
        stored: bytes in float32 and bfloat16, then at each requested scheme.
    """

    name: str
    parts: tuple[Component, ...]
    stored: tuple[StoredBytes, ...]

    @cached_property
    def graph(self) -> LayerGraph:
        """The layers of all components, each in its order."""
        graphs = [part.graph for part in self.parts]
        return LayerGraph(
            layers=tuple(chain.from_iterable(g.layers for g in graphs)),
            edges=tuple(chain.from_iterable(g.edges for g in graphs)),
            shared_inputs=tuple(chain.from_iterable(g.shared_inputs for g in graphs)),
            tied=tuple(chain.from_iterable(g.tied for g in graphs)),
            unused=tuple(chain.from_iterable(g.unused for g in graphs)),
            parts=tuple(chain.from_iterable(g.parts for g in graphs)),
        )

    @property
    def parameters(self) -> int:
        """Number of values in all parameters."""
        return sum(part.parameters for part in self.parts)

    @property
    def planned(self) -> tuple[str, ...]:
        """The components that take latents, which a sampler iterates: they are planned by default."""
        return tuple(part.component for part in self.parts if part.call and part.call.rows)

    @property
    def architecture(self) -> str:
        """The fingerprint of the layers, equal to that in a profile of the same components."""
        return architecture_fingerprint(self.graph)

    def to_json(self) -> dict[str, Any]:
        """Returns data for `json.dumps`."""
        return {
            "kind": "configuration",
            "name": self.name,
            "architecture": self.architecture,
            "parameters": self.parameters,
            "layers": len(self.graph.layers),
            "layer_parameters": total_parameters(self.graph),
            "macs": total_macs(self.graph),
            "parts": [part.to_json() for part in self.parts],
            "planned": list(self.planned),
            "stored": [vars(row) for row in self.stored],
            "graph": to_json(self.graph),
        }

    def __str__(self) -> str:
        """Tables of the components, the layers by kind, the bytes at each scheme, and the largest layers."""
        layers = self.graph.layers
        tables = (
            [_part_row(part) for part in self.parts],
            [_kind_row(kind, list(some)) for kind, some in groupby(sorted(layers, key=_kind), key=_kind)],
            [_stored_row(row, self.stored[0]) for row in self.stored],
            [_layer_row(layer) for layer in sorted(layers, key=lambda layer: -layer.parameters)[:_SHOWN]],
        )
        return "\n\n".join([_summary(self), *map(table, tables)])


def _summary(outline: Outline) -> str:
    first = f"{outline.name}: {outline.parameters:,} parameters, {total_parameters(outline.graph):,} of them in "
    lines = [f"{first}{len(outline.graph.layers)} layers, architecture {outline.architecture[:12]}"]
    if outline.planned and len(outline.parts) > 1:
        counts = {part.component: len(part.graph.layers) for part in outline.parts}
        some = " and ".join(f"{name} ({counts[name]} layers)" for name in outline.planned)
        lines.append(f"planned by default: {some}; `bitplan profile --components` takes others, too")
    lines += [f"{part.component}: {part.why}; its multiply-adds are not counted" for part in outline.parts if part.why]
    lines += [
        f"{part.component}: {len(part.graph.unused)} layers were not called, such as {part.graph.unused[0]}"
        for part in outline.parts
        if part.graph.unused
    ]
    return "\n".join(lines)


def _giga(count: int) -> str:
    """Returns billions: whole numbers from 1,000 on, else three digits."""
    return f"{count / 1e9:,.0f}" if count >= 1e12 else f"{count / 1e9:.3g}"


def _kind(layer: Layer) -> str:
    return layer.kind


def _part_row(part: Component) -> dict[str, str]:
    call = part.call
    frames = [f"{call.frames} frames"] if call and call.frames > 1 else []
    size = call and call.rows and " x ".join([str(call.batch), *frames, f"{call.rows} x {call.columns}"])
    return {
        "component": part.component,
        "class": part.kind,
        "parameters": f"{part.parameters:,}",
        "layers": str(len(part.graph.layers)),
        "GMACs a call": _giga(part.macs) if call else "",
        "call, in latents": size or "",
        "tokens": str(call.tokens) if call else "",
    }


def _kind_row(kind: str, layers: Sequence[Layer]) -> dict[str, str]:
    return {
        "kind": kind,
        "layers": str(len(layers)),
        "parameters": f"{sum(layer.parameters for layer in layers):,}",
        "GMACs a call": _giga(sum(layer.macs for layer in layers)),
    }


def _stored_row(row: StoredBytes, first: StoredBytes) -> dict[str, str]:
    return {
        "all layers at": row.scheme + f" ({row.kept} kept)" * bool(row.kept),
        "layers' weights": f"{row.weights:,} ({show_bytes(row.weights)})",
        "whole": f"{row.whole:,} ({show_bytes(row.whole)})",
        "of float32": f"{row.whole / first.whole:.1%}",
    }


def _layer_row(layer: Layer) -> dict[str, str]:
    return {
        "largest layers": layer.address,
        "kind": layer.kind,
        "weight": " x ".join(map(str, layer.weight)),
        "parameters": f"{layer.parameters:,}",
        "GMACs a call": _giga(layer.macs),
    }
