"""Exports a plan to a target: refuses schemes that it cannot express, or replaces them by the nearest it can."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from bitplan.planner.choice.evidence import twins_of
from bitplan.planner.errors import UserError
from bitplan.planner.files import beside, plain_name, write_text
from bitplan.planner.interop.exports import Change, Export, Exports, ExportSize
from bitplan.planner.interop.model import Model, read_model
from bitplan.planner.targets import target_named
from bitplan.planner.targets.base import ExportPart, Target, nearest_scheme, why
from bitplan.plans.dtypes import FLOAT32, itemsize_of
from bitplan.plans.plan import Plan, check_architecture, check_layers
from bitplan.plans.scheme import KEEP, Scheme, parse_scheme

_SHOWN = 3  # reasons in one line


def export_plan(
    plan: Plan, to: str, out: Path, model: str | None = None, approximate: bool = False, variant: str | None = None
) -> Exports:
    """Writes the plan for the tool `to`: the file `out`, or `out` with -COMPONENT for each of several components.

    model, variant: see `read_model`; approximate: use the nearest scheme that the tool can express, and list the
    changes. Raises UserError with the number of layers that the tool cannot express, PlanError for another model's
    layers.
    """
    target = target_named(to)
    return export_files(plan, read_model(plan, model, variant), target, out, approximate)


def export_files(plan: Plan, model: Model, target: Target, out: Path, approximate: bool) -> Exports:
    """Writes one file for each component; see `export_plan`."""
    check_layers(plan, model.layers)
    check_architecture(plan, model.architecture)
    planned = {layer: parse_scheme(text) for layer, text in plan.schemes.items()}
    reasons = {layer: why(target, scheme, model.layers[layer]) for layer, scheme in planned.items()}
    refused = {layer: reason for layer, reason in reasons.items() if reason}
    if refused and not approximate:
        raise UserError(_refusal(target, planned, refused))
    schemes = planned | {layer: nearest_scheme(target, planned[layer], model.layers[layer]) for layer in refused}
    sizes = _sizes(plan, schemes, target, model)
    changes = tuple(
        Change(layer, str(planned[layer]), str(schemes[layer]), reason, model.sizes.get(layer), sizes[layer])
        for layer, reason in refused.items()
    )
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
    size = ExportSize(
        target, sum(sizes.values()), plan.predictions.get("total", {}).get("bytes"), plan.budgets.get("bytes")
    )
    return Exports(tuple(exports), size, tuple(column for column in plan.budgets if column != "bytes"))


def _sizes(plan: Plan, schemes: Mapping[str, Scheme], target: Target, model: Model) -> dict[str, int]:
    """Returns layer -> bytes as the target holds it; a shared weight in full precision counts once."""
    itemsize, again = itemsize_of(plan.model.get("dtype", FLOAT32)), twins_of(model.tied)
    return {
        layer: 0 if layer in again and (scheme == KEEP or target.stored is None)
        else target.holds(scheme, model.layers[layer], itemsize)
        for layer, scheme in schemes.items()
    }  # fmt: skip


def _place(out: Path, component: str, parts: int) -> Path:
    """Returns the file of a component: `out`, or with its name added where there are several."""
    return out if parts == 1 else beside(out, f"{out.stem}-{plain_name(component)}{out.suffix}")


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
        + f"; give --approximate for the nearest schemes that it can express, or solve with --target {target.name}"
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
