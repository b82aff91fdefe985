"""Exports a plan to a target: refuses schemes that it cannot express, or replaces them by the nearest it can."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bitplan.planner.errors import UserError
from bitplan.planner.files import beside, plain_name, write_text
from bitplan.planner.graph.layers import Layer
from bitplan.plans.plan import Plan, check_architecture, check_layers
from bitplan.plans.scheme import KEEP, Scheme, every_scheme, parse_scheme
from bitplan.plans.takes import Takes

_SHOWN = 3  # reasons in one line


@dataclass(frozen=True)
class Model:
    """The layers of a plan's model.

    Attributes:
        layers: address -> planned layer.
        unplanned: addresses of other modules with a weight matrix, as far as they are known.
        architecture: the fingerprint of the layers.
    """

    layers: Mapping[str, Layer]
    unplanned: tuple[str, ...]
    architecture: str


@dataclass(frozen=True)
class ExportPart:
    """The contents of one file, by paths below `component` in the plan's order.

    Attributes:
        component: the component's name.
        schemes: path -> scheme.
        layers: path -> layer.
        unplanned: paths of other modules, see `Model`.
    """

    component: str
    schemes: Mapping[str, Scheme]
    layers: Mapping[str, Layer]
    unplanned: tuple[str, ...]


@dataclass(frozen=True)
class Target:
    """A tool that reads exported plans.

    Attributes:
        name: its name on the command line.
        about: one line for tables.
        takes: the terms of schemes that it can express; all others are declined by name.
        refuses: returns why it cannot express a scheme of these terms in a layer, or None.
        text: returns the contents of a component's file.
        lost: the parts of a plan that its files cannot represent.
        use: how a file is used, with {file} and {component}.
        kinds: the kinds of layers that it quantizes.
    """

    name: str
    about: str
    takes: Takes
    refuses: Callable[[Scheme, Layer], str | None]
    text: Callable[[ExportPart], str]
    lost: str
    use: str
    kinds: tuple[str, ...] = ("linear", "conv2d")


@dataclass(frozen=True)
class Change:
    """A layer whose scheme was replaced.

    Attributes:
        layer: its address.
        planned: the planned scheme.
        written: the exported scheme.
        reason: why the target cannot express the planned scheme.
    """

    layer: str
    planned: str
    written: str
    reason: str


@dataclass(frozen=True)
class Export:
    """One exported file.

    Attributes:
        path: the file.
        target: the tool that reads it.
        component: the component that it describes.
        schemes: layer address -> exported scheme.
        changes: the replaced schemes.
    """

    path: Path
    target: Target
    component: str
    schemes: Mapping[str, str]
    changes: tuple[Change, ...]

    @property
    def use(self) -> str:
        """How the file is used."""
        return self.target.use.format(file=str(self.path), component=self.component)

    def to_json(self) -> dict[str, Any]:
        """Returns data for `json.dumps`."""
        return {
            "path": str(self.path), "target": self.target.name, "component": self.component,
            "schemes": dict(self.schemes), "changes": [asdict(change) for change in self.changes],
            "lost": self.target.lost, "use": self.use,
        }  # fmt: skip

    def __str__(self) -> str:
        """Lists the schemes, the changes, the losses of the format, and the use of the file."""
        counts = Counter(self.schemes.values())
        kinds = ", ".join(f"{scheme} x {count}" for scheme, count in counts.most_common())
        lines = [f"{self.path}: {self.target.name} for {self.component}, {_layers(len(self.schemes))}: {kinds}"]
        groups: dict[tuple[str, str, str], list[str]] = {}
        for change in self.changes:
            groups.setdefault((change.planned, change.written, change.reason), []).append(change.layer)
        lines += [
            f"changed: {planned} -> {written} in {', '.join(layers)} ({_layers(len(layers))}): {reason}"
            for (planned, written, reason), layers in groups.items()
        ]
        return "\n".join([*lines, f"lost: {self.target.lost}", f"use: {self.use}"])


@dataclass(frozen=True)
class Exports(Sequence[Export]):
    """The exported files of a plan, in order of its components.

    Attributes:
        files: one for each component.
    """

    files: tuple[Export, ...]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: Any) -> Any:
        return self.files[index]

    def to_json(self) -> dict[str, Any]:
        """Returns data for `json.dumps`."""
        return {"files": [export.to_json() for export in self.files]}

    def __str__(self) -> str:
        """Describes the files one after another."""
        return "\n".join(map(str, self.files))


def export_files(plan: Plan, model: Model, target: Target, out: Path, approximate: bool) -> Exports:
    """Writes one file for each component; see `bitplan.planner.interop.targets.export_plan`."""
    check_layers(plan, model.layers)
    check_architecture(plan, model.architecture)
    planned = {layer: parse_scheme(text) for layer, text in plan.schemes.items()}
    reasons = {layer: why(target, scheme, model.layers[layer]) for layer, scheme in planned.items()}
    refused = {layer: reason for layer, reason in reasons.items() if reason}
    if refused and not approximate:
        raise UserError(_refusal(target, planned, refused))
    replaced = {layer: nearest_scheme(target, planned[layer], model.layers[layer]) for layer in refused}
    changes = tuple(Change(la, str(planned[la]), str(replaced[la]), reason) for la, reason in refused.items())
    schemes = planned | replaced
    parts = list(_parts(schemes, model))
    exports = [
        Export(
            _place(out, part.component, len(parts)), target, part.component,
            {layer: str(scheme) for layer, scheme in schemes.items() if _component(layer) == part.component},
            tuple(change for change in changes if _component(change.layer) == part.component),
        )
        for part in parts
    ]  # fmt: skip
    for export, part in zip(exports, parts, strict=True):
        write_text(target.text(part), export.path)
    return Exports(tuple(exports))


def _place(out: Path, component: str, parts: int) -> Path:
    """Returns the file of a component: `out`, or with its name added where there are several."""
    return out if parts == 1 else beside(out, f"{out.stem}-{plain_name(component)}{out.suffix}")


def why(target: Target, scheme: Scheme, layer: Layer) -> str | None:
    """Returns why `target` cannot express `scheme` of `layer`, or None; every target can keep a layer."""
    if scheme == KEEP:
        return None
    if "." not in layer.address:
        return "it is the whole component and has no name inside it"
    if layer.held:
        return "it is a projection of nn.MultiheadAttention, which is not a module of its own in any tool"
    if layer.aliases:
        return "one module has several names, and the tool selects modules by name"
    if layer.kind not in target.kinds:
        return f"its files are written for {' and '.join(target.kinds)} layers, not for {layer.kind}"
    return target.takes.declines(scheme) or target.refuses(scheme, layer)


def nearest_scheme(target: Target, scheme: Scheme, layer: Layer) -> Scheme:
    """Returns the scheme nearest to `scheme` by `distance` that `target` can express of `layer`, `keep` at worst."""
    return next(other for other in _by_distance(scheme, tuple(every_scheme())) if why(target, other, layer) is None)


@cache
def _by_distance(planned: Scheme, schemes: tuple[Scheme, ...]) -> tuple[Scheme, ...]:
    return tuple(sorted(schemes, key=lambda other: distance(planned, other)))


def distance(planned: Scheme, other: Scheme) -> tuple[float, ...]:
    """Returns a key for sorting, the most important difference first.

    The order is: integer or floating point, weight bits (more before fewer), input bits (likewise), static or dynamic
    input scales, transforms, groups (smaller before larger), zero points, least squares.
    """
    w, v, a, b = planned.weight, other.weight, planned.inputs, other.inputs
    group, others = w.group or 1 << 20, v.group or 1 << 20
    return (
        w.kind != v.kind, max(0, w.bits - v.bits), v.bits - w.bits, max(0, a.bits - b.bits), b.bits - a.bits,
        a.static != b.static, len(set(planned.transforms) ^ set(other.transforms)), max(1, others / group),
        group / others, w.affine != v.affine, w.least_squares != v.least_squares,
    )  # fmt: skip


def _refusal(target: Target, planned: Mapping[str, Scheme], refused: Mapping[str, str]) -> str:
    """Returns one line with the number of refused layers, and for each reason its count and first layer."""
    counts = Counter(refused.values())
    kinds = []
    for reason, count in counts.most_common(_SHOWN):
        first = next(layer for layer, other in refused.items() if other == reason)
        kinds.append(f"{count}, the first {first} ({planned[first]}): {reason}")
    more = sum(count for _, count in counts.most_common()[_SHOWN:])
    return (
        f"{target.name} cannot express {len(refused)} of {len(planned)} layers: {'; '.join(kinds)}"
        + (f"; {more} for other reasons" if more else "")
        + "; give --approximate for the nearest schemes that it can express, or solve again with such schemes"
    )


def _parts(schemes: Mapping[str, Scheme], model: Model) -> Iterator[ExportPart]:
    for name in dict.fromkeys(map(_component, schemes)):
        if not name.isidentifier():  # it stands in the code that says how the file is used
            raise UserError(f"the plan names a component {name!r}, which is no name in Python; solve again")
        inside = {layer: layer[len(name) + 1 :] for layer in schemes if layer.startswith(name + ".")}
        yield ExportPart(
            name,
            {path: schemes[layer] for layer, path in inside.items()},
            {path: model.layers[layer] for layer, path in inside.items()},
            tuple(layer[len(name) + 1 :] for layer in model.unplanned if layer.startswith(name + ".")),
        )


def _component(layer: str) -> str:
    return layer.partition(".")[0]


def _layers(count: int) -> str:
    return f"{count} layer{'s' * (count != 1)}"
