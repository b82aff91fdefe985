"""The result of a reader of a foreign format, how it is saved as a profile, and checks that readers share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bitplan.planner.errors import UserError
from bitplan.planner.files import read_bytes
from bitplan.planner.graph.layers import LayerGraph, to_json
from bitplan.planner.profiles.profile import Cost, Profile
from bitplan.planner.texts import one_line, system_reason
from bitplan.plans.checks import LARGEST, shown
from bitplan.sensitivity.table import Measurement

_SHOWN = 200  # characters of a file that an error shows
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class ForeignProfile:
    """A profile that was read from foreign files.

    Attributes:
        header: as in a measured profile, and `source`: its format, digests, and `decided`, one line on decisions made.
        graph: the layers.
        schemes: text forms, `keep` first.
        costs: one for each (layer, scheme).
        measurements: one for each (layer, scheme, metric).
        families: metric -> family.
    """

    header: Mapping[str, Any]
    graph: LayerGraph
    schemes: tuple[str, ...]
    costs: tuple[Cost, ...]
    measurements: tuple[Measurement, ...]
    families: Mapping[str, str]


def save(profile: ForeignProfile, out: Path) -> None:
    """Writes the profile, one transaction for each table, and resumes a killed import. Raises ProfileError."""
    with Profile.create(out, profile.header) as store:
        store.write_graph(to_json(profile.graph), profile.schemes)
        store.write_ranges({layer: {} for layer in store.layers()})  # unknown; schemes with 16-bit inputs need none
        store.write_costs(profile.costs)
        stored = store.measured()
        rest = [m for m in profile.measurements if (m.layer, m.scheme) not in stored]
        store.write_measurements(rest, profile.families)


def read_numbers(path: Path, count: int) -> dict[str, tuple[float, ...]]:
    """Reads a YAML file that maps each layer to `count` numbers, or to one number for 1. Raises UserError."""
    try:
        data = yaml.load(read_bytes(path), _LOADER)
    except OSError as error:
        raise UserError(f"cannot read {path}: {system_reason(error)}; give the folder that holds it") from None
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:  # of PyYAML
        reason = one_line(error, _SHOWN)
        raise UserError(f"{path} is not YAML ({reason}); copy it again from its source") from None
    if not isinstance(data, dict) or not data:
        raise UserError(f"{path} maps no layers to numbers; copy it again from its source")
    return {str(layer): _numbers(path, layer, value, count) for layer, value in data.items()}


def _numbers(path: Path, layer: object, value: object, count: int) -> tuple[float, ...]:
    values: list[Any] = value if isinstance(value, list) else [value]
    if len(values) != count or not all(map(_is_number, values)):
        raise UserError(f"{path}: {one_line(layer, _SHOWN)} has {shown(value)} instead of {count} finite numbers; "
                        "correct it or remove the layer from all files")  # fmt: skip
    return tuple(float(v) for v in values)


def _is_number(value: object) -> bool:
    """Whether it is a number that a float holds."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -LARGEST <= value <= LARGEST


def check_same_layers(reference: Path, names: Sequence[str], path: Path, others: Sequence[str]) -> None:
    """Checks that every layer of `path` is in `reference`. Raises UserError that names a missing one."""
    unknown = sorted(set(others) - set(names))
    if unknown:
        raise UserError(f"{path} names {len(unknown)} layers that {reference.name} does not, such as {unknown[0]}; "
                        "take both files from one release")  # fmt: skip
