"""The plan file: one scheme per layer and where it comes from, in YAML. Imports no torch. See docs/plan-file.md."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from bitplan.plans.checks import Wrong, printable, shown
from bitplan.plans.dtypes import FLOAT32
from bitplan.plans.files import PathError, beside, inside, written
from bitplan.plans.names import nearest_or_all
from bitplan.plans.plan_schema import OPTIONAL, PLAN, VERSION
from bitplan.plans.plan_text import summary
from bitplan.plans.reading import read_bytes, read_text
from bitplan.plans.scheme import Scheme, SchemeError, parse_scheme
from bitplan.plans.strict_yaml import StrictLoader

if TYPE_CHECKING:
    from bitplan.plans.parameters import Parameters


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
    """One scheme for each layer, and its provenance.

    Attributes:
        model: name, fingerprint, architecture and components.
        schemes: layer address -> scheme text, in the model's order.
        simulated: layers whose scheme no kernel ran where the plan was made.
        calibration: prompts, steps, and the ranges of static inputs.
        budgets: column -> limit.
        predictions: `total`, column -> sum; `blocks` and `full`, block -> column -> sum, the latter with every layer
            kept.
        solver: how it ended.
        groups: layers that read one input and share what a transform was fitted with: `members`, `transforms`.
        fitted: the fitted parameters, as `bitplan.plans.parameters` encodes them; the owner in a group is its first
            member.
    """

    model: Mapping[str, Any]
    schemes: Mapping[str, str]
    simulated: tuple[str, ...] = ()
    calibration: Mapping[str, Any] = field(default_factory=dict)
    budgets: Mapping[str, int | float] = field(default_factory=dict)
    predictions: Mapping[str, Any] = field(default_factory=dict)
    solver: Mapping[str, Any] = field(default_factory=dict)
    groups: tuple[Mapping[str, Any], ...] = ()
    fitted: bytes = field(default=b"", repr=False)

    @cached_property
    def parameters(self) -> Parameters:
        """The fitted parameters by (owner, transform)."""
        from bitplan.plans.parameters import decoded  # needs numpy, which no other plan does

        return decoded(self.fitted)

    @property
    def version(self) -> int:
        """Of its file: 2 with groups or fitted parameters, else 1, which older versions read."""
        return 2 if self.groups or self.fitted else 1

    def to_json(self) -> dict[str, Any]:
        """Returns the sections of the plan file; groups and the digest of fitted parameters only if there are any."""
        sections = {name: _plain(getattr(self, name)) for name in _SECTIONS}
        digest = {"parameters": hashlib.sha256(self.fitted).hexdigest()} if self.fitted else {}
        return sections | ({"groups": _plain(self.groups)} if self.groups else {}) | digest

    def owner_of(self, layer: str, term: str) -> str:
        """Under which address the parameters of a layer's transform are held."""
        shared = (
            group["members"][0] for group in self.groups if layer in group["members"] and term in group["transforms"]
        )
        return next(shared, layer)

    def __str__(self) -> str:
        """Returns one paragraph: the model, the schemes, the limits, the predictions, and the solver's status."""
        totals = self.predictions.get("total", {})
        return summary(self.model["name"], self.schemes, self.budgets, totals, self.solver)

    @cached_property
    def parsed(self) -> Mapping[str, Scheme]:
        """Layer -> its scheme; each text is parsed once. Raises SchemeError."""
        schemes = {text: parse_scheme(text) for text in dict.fromkeys(self.schemes.values())}
        return {layer: schemes[text] for layer, text in self.schemes.items()}


def load_plan(path: str | PathLike[str]) -> Plan:
    """The plan in a file, with the file of its fitted parameters beside it.

    Raises PlanError in one line that names the file, the key and what is expected.
    """
    path = Path(path)
    try:
        data = yaml.load(read_text(path), StrictLoader)  # noqa: S506 - a safe loader, made stricter
    except OSError as error:
        raise PlanError(f"cannot read the plan {path}: {error.strerror}; check the path") from None
    except UnicodeDecodeError:
        raise PlanError(f"{path} is not a text file; a plan is YAML, as `bitplan solve` writes it") from None
    except (yaml.YAMLError, ValueError) as error:
        place = getattr(error, "problem_mark", None)
        where = f", line {place.line + 1}" if place else ""
        problem = printable(" ".join(str(getattr(error, "problem", None) or error).split()))[:_SHOWN]
        raise PlanError(f"{path}{where}: {problem}; correct it or solve again") from None
    return _plan_of(data, path, _read_fitted)


def save_plan(plan: Plan, path: str | PathLike[str]) -> None:
    """Write the plan, and its fitted parameters beside it, each in one move; the same plan gives the same bytes.

    Raises PlanError.
    """
    path = Path(path)
    text = dump_plan(plan, path)
    # What could not be read back is not written: PyYAML loses some control characters.
    if dump_plan(_plan_of(yaml.load(text, StrictLoader), path, lambda *_: plan.fitted), path) != text:  # noqa: S506
        raise PlanError(f"cannot write the plan {path}: a name in it holds control characters; rename it")
    try:
        if plan.fitted:
            with written(beside(path, fitted_name(path)), "binary") as partial:
                partial.write_bytes(plan.fitted)
        with written(path, "plan") as partial:
            partial.write_text(text, "utf-8")
    except OSError as error:
        raise PlanError(f"cannot write the plan {path}: {error.strerror}; choose another --out") from None


def dump_plan(plan: Plan, path: Path = Path("P.plan.yaml")) -> str:
    """The text of the plan file at `path`. Raises PlanError for what is not a dictionary, list, text or number."""
    data = {"bitplan": plan.version} | plan.to_json()
    if plan.fitted:
        data["parameters"] = {"file": fitted_name(path), "sha256": data["parameters"]}
    try:
        return yaml.dump(data, Dumper=yaml.SafeDumper, sort_keys=False, allow_unicode=True, width=120)
    except yaml.representer.RepresenterError as error:
        raise PlanError(f"a plan holds plain data only, not {error.args[-1]!r}; convert it first") from None


def fitted_name(path: Path) -> str:
    """Beside P.plan.yaml, P.plan.safetensors."""
    return f"{path.stem.removesuffix('.plan').lstrip('.') or 'P'}.plan.safetensors"


def _read_fitted(path: Path, entry: Mapping[str, str]) -> bytes:
    """The file of fitted parameters, which lies beside the plan. The schema allows plain file names only."""
    try:
        data = read_bytes(place := inside(path.parent, entry["file"]), MOST_FITTED)
    except PathError as refused:
        raise PlanError(f"{path}, parameters.file: {refused}") from None
    except OSError as error:
        raise PlanError(
            f"{path}, parameters.file: cannot read {place}: {error.strerror}; keep it beside the plan"
        ) from None
    if (digest := hashlib.sha256(data).hexdigest()) != entry["sha256"]:
        raise PlanError(f"{path}, parameters.sha256: {place} has {digest[:12]}, the plan needs {entry['sha256'][:12]}; "
                        "take the file that was written with the plan")  # fmt: skip
    return data


def check_layers(plan: Plan, layers: Iterable[str]) -> None:
    """Raises PlanError when the plan names a layer that is not among `layers`, with the nearest match."""
    known = list(layers)
    unknown = [layer for layer in plan.schemes if layer not in set(known)]
    if unknown:
        hint = nearest_or_all(unknown[0], known) or "; this model has no layers"
        raise PlanError(f"{len(unknown)} of {len(plan.schemes)} layers of the plan are not in this model, such as "
                        f"{unknown[0]}; use the model it was made for{hint}")  # fmt: skip


def check_architecture(plan: Plan, architecture: str) -> None:
    """Raise PlanError if `architecture`, a digest of layers and shapes, is not the one for which the plan was made."""
    if plan.model["architecture"] != architecture:
        raise PlanError(
            f"the {len(plan.schemes)} layers of the plan are not those it was made for: one is missing from the plan, "
            f"or has another shape in this model; solve again for this model"
        )


def check_fingerprint(
    plan: Plan, fingerprint: str, allow_mismatch: bool = False, dtype: str | None = None
) -> None:  # fmt: skip
    """Raises PlanError when the plan was made for other weights, unless that is allowed.

    dtype: float type of the weights; None for that of the plan.
    """
    made_for, name = plan.model["fingerprint"], plan.model["name"]
    if made_for == fingerprint or allow_mismatch:
        return
    if dtype not in (None, made_in := dtype_of([plan])):
        raise PlanError(f"the plan was made for {name} in {made_in}, and the weights of this model are {dtype}, which "
                        f"rounds them to other values; load it with dtype=torch.{made_in}, or, if other weights "
                        "are meant, give allow_mismatch=True")  # fmt: skip
    raise PlanError(
        f"the plan was made for {name} with fingerprint {made_for[:12]}, this model has "
        f"{fingerprint[:12]}; profile it, or, for a fine-tune of the same architecture, give --allow-mismatch, as "
        "`bitplan apply` and `bitplan evaluate` take it"
    )


MOST_FITTED = 2**32  # bytes of a file of fitted parameters
_SHOWN = 300  # characters of what a parser says
_SECTIONS = tuple(f.name for f in fields(Plan) if f.name not in ("groups", "fitted"))


def _plain(value: Any) -> Any:  # mappings as dictionaries and tuples as lists, all the way down
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, (tuple, list)) else value


def _plan_of(data: Any, path: Path, read_fitted: Callable[[Path, Mapping[str, str]], bytes]) -> Plan:
    if not isinstance(data, dict) or "bitplan" not in data:
        raise PlanError(f"{path} is not a plan: it has no `bitplan` version at the top; write one with `bitplan solve`")
    version = data["bitplan"]
    if isinstance(version, (int, float)) and version > VERSION:
        raise PlanError(f"{path} has version {shown(version)} and this BitPlan reads up to {VERSION}; upgrade bitplan")
    try:
        PLAN(data)
    except Wrong as wrong:
        raise PlanError(f"{path}, {wrong}") from None
    newer = [key for key in OPTIONAL if key in data]
    if newer and version < 2:
        raise PlanError(f"{path}, {newer[0]}: version {version} has no such key; write `bitplan: 2`")
    schemes = _schemes(data["schemes"], path)
    if foreign := [layer for layer in data["simulated"] if layer not in schemes]:
        raise PlanError(f"{path}, simulated: {foreign[0]} has no scheme; name layers of `schemes`")
    sections = {name: data[name] for name in _SECTIONS}
    fitted = read_fitted(path, data["parameters"]) if "parameters" in data else b""
    plan = Plan(
        **sections | {"simulated": tuple(sections["simulated"])}, groups=tuple(data.get("groups", ())), fitted=fitted
    )
    _check_groups(plan, schemes, path)
    if fitted:
        _check_fitted(plan, schemes, path)
    return plan


def _schemes(texts: Mapping[str, str], path: Path) -> dict[str, Scheme]:
    found = {}
    for layer, text in texts.items():
        try:
            found[layer] = parse_scheme(text)
        except SchemeError as refused:
            raise PlanError(f"{path}, schemes.{layer}: {refused}") from None
    return found


def _check_groups(plan: Plan, schemes: Mapping[str, Scheme], path: Path) -> None:
    """Raises PlanError where a member of a group is not a layer of the plan with the transforms of the group."""
    for number, group in enumerate(plan.groups):
        for layer in group["members"]:
            terms = [str(term) for term in schemes[layer].transforms] if layer in schemes else []
            if missing := [term for term in group["transforms"] if term not in terms]:
                raise PlanError(f"{path}, groups.{number}: the scheme of {layer} has no {missing[0]}; name layers of "
                                "`schemes` that have it")  # fmt: skip


def _check_fitted(plan: Plan, schemes: Mapping[str, Scheme], path: Path) -> None:
    """Raises PlanError for fitted parameters that no layer of the plan uses, or that are not finite floats."""
    from bitplan.plans.parameters import ParameterError

    used = {(plan.owner_of(layer, str(t)), str(t)) for layer, scheme in schemes.items() for t in scheme.transforms}
    try:
        foreign = [key for key in plan.parameters if key not in used]
    except ParameterError as refused:
        raise PlanError(f"{path}, parameters: {refused}; solve again") from None
    if foreign:
        raise PlanError(f"{path}, parameters: no layer uses {''.join(foreign[0])}; take the file that was written with "
                        "the plan")  # fmt: skip
