"""What a reader of a foreign format hands over, and how it becomes a profile."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bitplan.planner.errors import UserError
from bitplan.planner.graph.layers import LayerGraph, to_json
from bitplan.planner.profiles.profile import Cost, Profile
from bitplan.planner.texts import one_line
from bitplan.sensitivity.table import Measurement

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Imported:
    """A profile in the making. header: as of a measured one, and `source`: where it is from, how it was read, and under
    `decided` what had to be decided, in one line; families: metric -> family."""

    header: Mapping[str, Any]
    graph: LayerGraph
    schemes: tuple[str, ...]
    costs: tuple[Cost, ...]
    measurements: tuple[Measurement, ...]
    families: Mapping[str, str]


def save(found: Imported, out: Path) -> None:
    """Write the profile, one transaction a table: a killed import is finished by the next. Raises ProfileError."""
    with Profile.create(out, found.header) as store:
        store.write_graph(to_json(found.graph), found.schemes)
        store.write_ranges({layer: {} for layer in store.layers()})  # none is known, and no a16 scheme needs one
        store.write_costs(found.costs)
        done = store.measured()
        rest = [m for m in found.measurements if (m.layer, m.scheme) not in done]
        store.write_measurements(rest, found.families)


def read_numbers(path: Path, count: int) -> dict[str, tuple[float, ...]]:
    """A YAML file that maps each layer to `count` numbers, a lone number where `count` is 1. Raises UserError."""
    try:
        data = yaml.load(path.read_bytes(), _LOADER)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; give the folder that holds it") from None
    except (yaml.YAMLError, ValueError) as error:
        reason = one_line(error)
        raise UserError(f"{path} is no YAML ({reason}); copy it again from its source") from None
    if not isinstance(data, dict) or not data:
        raise UserError(f"{path} maps no layers to numbers; copy it again from its source")
    return {str(layer): _numbers(path, layer, value, count) for layer, value in data.items()}


def _numbers(path: Path, layer: object, value: object, count: int) -> tuple[float, ...]:
    values: list[Any] = value if isinstance(value, list) else [value]
    plain = all(isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) for v in values)
    if len(values) != count or not plain:
        raise UserError(f"{path}: {layer} has {value!r} where {count} finite numbers are due; correct it or leave the "
                        "layer out of all files")  # fmt: skip
    return tuple(float(v) for v in values)


def check_same_layers(known: Path, names: Sequence[str], path: Path, others: Sequence[str]) -> None:
    """Every layer of `path` is in `known`. Raises UserError naming one that is not."""
    strangers = sorted(set(others) - set(names))
    if strangers:
        raise UserError(f"{path} names {len(strangers)} layers that {known.name} does not, such as {strangers[0]}; "
                        "take both files from one release")  # fmt: skip
