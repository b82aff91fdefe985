"""The plan file: one scheme a layer, with where it came from, in YAML. Imports no torch. See docs/plan-file.md."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from bitplan.plans.dtypes import FLOAT32
from bitplan.plans.files import written
from bitplan.plans.names import nearest
from bitplan.plans.plan_schema import SCHEMA, VERSION
from bitplan.plans.scheme import Scheme, SchemeError, parse_scheme


def dtype_of(plans: Iterable[Plan]) -> str:
    """The float type that all the plans were made in. Raises UserError where they differ."""
    found = dict.fromkeys(plan.model.get("dtype", FLOAT32) for plan in plans)
    if len(found) > 1:
        raise PlanError(f"the plans were made in {' and '.join(found)}; take those of one type at a time")
    return next(iter(found), FLOAT32)


class PlanError(ValueError):
    """A plan file that cannot be read or written, or that is not for this model."""


@dataclass(frozen=True)
class Plan:
    """One scheme a layer, and its provenance.

    model: name, fingerprint, architecture and components; schemes: layer address -> scheme text, in the model's order;
    simulated: layers whose scheme no kernel ran where the plan was made; calibration: prompts, steps, and the
    activation ranges of static formats; budgets: column -> limit; predictions: `total`, column -> sum, and `blocks` and
    `full`, block -> column -> sum, the latter with every layer kept; solver: how it ended.
    """

    model: Mapping[str, Any]
    schemes: Mapping[str, str]
    simulated: tuple[str, ...] = ()
    calibration: Mapping[str, Any] = field(default_factory=dict)
    budgets: Mapping[str, int | float] = field(default_factory=dict)
    predictions: Mapping[str, Any] = field(default_factory=dict)
    solver: Mapping[str, Any] = field(default_factory=dict)
    version: int = VERSION

    @cached_property
    def parsed(self) -> Mapping[str, Scheme]:
        """Layer -> its scheme; each text is parsed once. Raises SchemeError."""
        schemes = {text: parse_scheme(text) for text in dict.fromkeys(self.schemes.values())}
        return {layer: schemes[text] for layer, text in self.schemes.items()}


class _Loader(yaml.SafeLoader):
    """YAML without objects, without aliases, and without a key given twice."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="aliases are not allowed", problem_mark=self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        return super().compose_node(parent, index)  # type: ignore[no-untyped-call]

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]  # type: ignore[no-untyped-call]
        twice = (
            next((key for i, key in enumerate(keys) if key in keys[:i]), None) if len(set(keys)) < len(keys) else None
        )
        if twice is not None:
            raise yaml.MarkedYAMLError(problem=f"key {twice!r} is given twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)  # type: ignore[no-untyped-call,no-any-return]


def load_plan(path: str | PathLike[str]) -> Plan:
    """The plan in a file. Raises PlanError in one line naming the file, the key and what is expected."""
    path = Path(path)
    try:
        data = yaml.load(path.read_text("utf-8"), _Loader)  # noqa: S506 - a safe loader, made stricter
    except OSError as error:
        raise PlanError(f"cannot read the plan {path}: {error.strerror}; check the path") from None
    except UnicodeDecodeError:
        raise PlanError(f"{path} is no text file; a plan is YAML, as `bitplan solve` writes it") from None
    except (yaml.YAMLError, RecursionError, TypeError, ValueError) as error:
        place = getattr(error, "problem_mark", None)
        where = f", line {place.line + 1}" if place else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise PlanError(f"{path}{where}: {problem}; mend it or solve again") from None
    return _plan_of(data, path)


def save_plan(plan: Plan, path: str | PathLike[str]) -> None:
    """Write the plan, replacing the file in one move; the same plan gives the same bytes. Raises PlanError."""
    path = Path(path)
    text = dump_plan(plan)
    # What could not be read back is not written: PyYAML loses some control characters.
    if dump_plan(_plan_of(yaml.load(text, _Loader), path)) != text:  # noqa: S506
        raise PlanError(f"cannot write the plan {path}: a name in it holds control characters; rename it")
    try:
        with written(path) as partial:
            partial.write_text(text, "utf-8")
    except OSError as error:
        raise PlanError(f"cannot write the plan {path}: {error.strerror}; choose another --out") from None


def dump_plan(plan: Plan) -> str:
    """The text of the plan file. Raises PlanError for what is no dictionary, list, text or number."""
    data = {"bitplan": plan.version} | {name: _plain(getattr(plan, name)) for name in _SECTIONS}
    try:
        return yaml.dump(data, Dumper=yaml.SafeDumper, sort_keys=False, allow_unicode=True, width=120)
    except yaml.representer.RepresenterError as error:
        raise PlanError(f"a plan holds plain data only, not {error.args[-1]!r}; convert it first") from None


def check_layers(plan: Plan, layers: Iterable[str]) -> None:
    """Raises PlanError when the plan names a layer that is not among `layers`, with the nearest match."""
    known = list(layers)
    unknown = [layer for layer in plan.schemes if layer not in set(known)]
    if unknown:
        hint = nearest(unknown[0], known) or "; this model has no layers"
        raise PlanError(f"{len(unknown)} of {len(plan.schemes)} layers of the plan are not in this model, such as "
                        f"{unknown[0]}; use the model it was made for{hint}")  # fmt: skip


def check_architecture(plan: Plan, architecture: str) -> None:
    """Raises PlanError when the plan's layers are not all the layers, of the shapes, of the model it was made for."""
    if plan.model["architecture"] != architecture:
        raise PlanError(
            f"the {len(plan.schemes)} layers of the plan are not those it was made for: one is missing from the plan, "
            f"or has another shape in this model; solve again for this model"
        )


def check_fingerprint(plan: Plan, fingerprint: str, allow_mismatch: bool = False) -> None:
    """Raises PlanError when the plan was made for other weights, unless that is allowed."""
    made_for = plan.model["fingerprint"]
    if made_for != fingerprint and not allow_mismatch:
        raise PlanError(
            f"the plan was made for {plan.model['name']} with fingerprint {made_for[:12]}, this model has "
            f"{fingerprint[:12]}; profile it, or give --allow-mismatch for a fine-tune of the same architecture"
        )


_SECTIONS = tuple(f.name for f in fields(Plan) if f.name != "version")


def _plain(value: Any) -> Any:
    """Mappings as dictionaries and tuples as lists, all the way down."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, (tuple, list)) else value


def _plan_of(data: Any, path: Path) -> Plan:
    if not isinstance(data, dict) or "bitplan" not in data:
        raise PlanError(f"{path} is no plan: it has no `bitplan` version at the top; write one with `bitplan solve`")
    version = data["bitplan"]
    if isinstance(version, (int, float)) and version > VERSION:
        raise PlanError(f"{path} has version {version} and this BitPlan reads up to {VERSION}; upgrade bitplan")
    _check_plain(data, path, "")
    errors = list(jsonschema.Draft202012Validator(SCHEMA).iter_errors(data))
    if errors:  # a misspelt key says more than that the right one is missing
        misspelt = [error for error in errors if error.validator == "additionalProperties"]
        raise PlanError(f"{path}, {_explain(jsonschema.exceptions.best_match(misspelt or errors))}")
    for layer, text in data["schemes"].items():
        try:
            parse_scheme(text)
        except SchemeError as refused:
            raise PlanError(f"{path}, schemes.{layer}: {refused}") from None
    if foreign := [layer for layer in data["simulated"] if layer not in data["schemes"]]:
        raise PlanError(f"{path}, simulated: {foreign[0]} has no scheme; name layers of `schemes`")
    sections = {name: data[name] for name in _SECTIONS}
    return Plan(**sections | {"simulated": tuple(sections["simulated"])}, version=version)


def _explain(error: Any) -> str:
    """One line on what a schema refuses."""
    place = ".".join(map(str, error.absolute_path)) or "the top"
    if error.validator == "additionalProperties":
        known = list(error.schema["properties"])
        extra = next(key for key in error.instance if key not in known)
        return f"{place}: unknown key {extra!r}{nearest(str(extra), known)}"
    return f"{place}: {error.message[:160]}"


def _check_plain(value: Any, path: Path, place: str) -> None:
    """Refuse numbers that are not finite and keys that are no text."""
    if isinstance(value, float) and not math.isfinite(value):
        raise PlanError(f"{path}, {place.lstrip('.')}: {value} is not finite; expected a number")
    if isinstance(value, dict):
        for key, part in value.items():
            if not isinstance(key, str):
                raise PlanError(f"{path}, {place.lstrip('.') or 'the top'}: key {key!r} is no text; put it in quotes")
            _check_plain(part, path, f"{place}.{key}")
    if isinstance(value, list):
        for i, part in enumerate(value):
            _check_plain(part, path, f"{place}.{i}")
