"""An outline as people read it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from bitplan.planner.graph.layers import Layer, to_json, total_parameters
from bitplan.planner.outlines.outline import Component, Outline, Size, StoredBytes, examine, numbers, stored
from bitplan.planner.texts import plain, table
from bitplan.planner.units import show_bytes
from bitplan.planner.views.inspect import Inspected
from bitplan.plans.scheme import parse_scheme

_SHOWN = 5  # of the largest layers


def describe(path: str, names: Sequence[str], size: Size, schemes: Sequence[str]) -> Inspected:
    """What the configuration at `path` tells: tables for people, every layer for programs. Raises UserError,
    SchemeError."""
    wanted = [parse_scheme(scheme) for scheme in schemes]
    outline = examine(path, names, size)
    rows = stored(outline, wanted)
    facts = {"kind": "configuration"} | numbers(outline, rows) | {"graph": to_json(outline.graph)}
    return Inspected(outline_text(outline, rows), plain(facts), None, outline.graph)


def outline_text(outline: Outline, rows: Sequence[StoredBytes]) -> str:
    """The components, the layers by kind, the bytes at each scheme, and the largest layers."""
    layers = outline.graph.layers
    tables = (
        [_part_row(part) for part in outline.parts],
        [_kind_row(outline, kind, list(some)) for kind, some in groupby(sorted(layers, key=_kind), key=_kind)],
        [_stored_row(row, rows[0]) for row in rows],
        [_layer_row(layer) for layer in sorted(layers, key=lambda layer: -layer.parameters)[:_SHOWN]],
    )
    first = f"{outline.name}: {outline.parameters:,} parameters, {total_parameters(outline.graph):,} of them in "
    lines = [f"{first}{len(layers)} layers, architecture {outline.architecture[:12]}"]
    lines += [f"{part.component}: {part.why}; its multiply-adds are not counted" for part in outline.parts if part.why]
    lines += [
        f"{part.component}: {len(part.graph.unused)} layers were not called, such as {part.graph.unused[0]}"
        for part in outline.parts
        if part.graph.unused
    ]
    return "\n\n".join(["\n".join(lines), *(str(_table(table)) for table in tables)])


def _table(rows: Sequence[dict[str, str]]) -> str:
    return table(rows)


def _giga(count: int) -> str:
    """Billions: whole ones where there are many, else three digits."""
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


def _kind_row(outline: Outline, kind: str, layers: Sequence[Layer]) -> dict[str, str]:
    return {
        "kind": kind,
        "layers": str(len(layers)),
        "parameters": f"{sum(layer.parameters for layer in layers):,}",
        "GMACs a call": _giga(sum(layer.macs for layer in layers)),
    }


def _stored_row(row: StoredBytes, first: StoredBytes) -> dict[str, str]:
    return {
        "all layers at": row.scheme + f" ({row.kept} left as they are)" * bool(row.kept),
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
