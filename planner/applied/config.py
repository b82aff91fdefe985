"""The part of a component's config.json that describes its packed layers and the float model they come from.

Diffusers and transformers have a base class each for such configs. This class derives from neither: it serves
both, and each of them may be imported without the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bitplan.planner.applied.config_schema import CONFIG, VERSION
from bitplan.planner.errors import UserError
from bitplan.planner.pipelines.marks import METHOD
from bitplan.planner.texts import one_line
from bitplan.plans.checks import Wrong
from bitplan.plans.inputs.base import ActivationError, ActivationScales
from bitplan.plans.numerics import named, range_tensor
from bitplan.plans.plan import Plan
from bitplan.plans.scheme import Scheme, SchemeError, parse_scheme
from bitplan.plans.transforms.base import Fitted

if TYPE_CHECKING:
    from bitplan.planner.applied.checkpoint import CheckpointState


class QuantizationMethod(str, Enum):  # noqa: UP042 - diffusers reads `.value` and compares with texts
    """The name under which both libraries know BitPlan."""

    BITPLAN = METHOD


@dataclass(frozen=True, repr=False)
class BitPlanConfig:
    """The packed layers of one component, and how they run.

    Attributes:
        component: its name in the pipeline.
        schemes: scheme -> paths, within the component, of its layers; without layers of scheme `keep`.
        ranges: path -> calibrated range of the input, then that of the first token where the scheme has one.
        kernels: `int` or `fake`.
        source: name and fingerprint of the float model.
        expected: the plan that float weights are checked against while they are quantized; not saved.
        version: of this format.
        quant_method: the name under which the libraries know BitPlan.
    """

    component: str
    schemes: Mapping[str, Sequence[str]]
    ranges: Mapping[str, Sequence[float]] = field(default_factory=dict)
    kernels: str = "int"
    source: Mapping[str, str] = field(default_factory=dict)
    expected: CheckpointState | None = field(default=None, compare=False)
    version: int = VERSION
    quant_method: QuantizationMethod = QuantizationMethod.BITPLAN

    @cached_property
    def layers(self) -> dict[str, Scheme]:
        """Path -> scheme."""
        parsed = {text: parse_scheme(text) for text in self.schemes}
        return {path: parsed[text] for text, paths in self.schemes.items() for path in paths}

    @cached_property
    def fitted(self) -> dict[str, Fitted]:
        """Path -> the fitted parameters of that layer; those of transforms only if a plan is expected.

        Raises ActivationError for a range that is not a magnitude.
        """
        parameters = {path: range_tensor(_checked(values)) for path, values in self.ranges.items()}
        for path, scheme in self.layers.items() if self.expected else ():
            assert self.expected is not None
            fitted = transform_parameters(self.expected.plan, f"{self.component}.{path}", scheme)
            parameters.setdefault(path, {}).update(fitted)
        return parameters

    def to_dict(self) -> dict[str, Any]:
        """Returns the content of config.json."""
        return {
            "quant_method": METHOD, "version": self.version, "component": self.component, "kernels": self.kernels,
            "source": dict(self.source),
            "schemes": {scheme: list(paths) for scheme, paths in self.schemes.items()},
            "ranges": {path: list(values) for path, values in self.ranges.items()},
        }  # fmt: skip

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], **_: Any) -> BitPlanConfig:
        """Restores a config from the result of `to_dict`. Raises UserError for any other mapping."""
        if data.get("quant_method") != METHOD or data.get("version") != VERSION:
            found = f"{data.get('quant_method')!r} version {data.get('version')!r}"
            raise UserError(f"this quantization config is {found}, and this BitPlan reads {METHOD} "
                            f"{VERSION}; upgrade bitplan")  # fmt: skip
        try:
            CONFIG(dict(data))
            config = cls(**{**data, "quant_method": QuantizationMethod.BITPLAN})
            layers, _fitted = config.layers, config.fitted
        except (Wrong, SchemeError, ActivationError, TypeError, AttributeError) as error:
            raise UserError(
                f"the quantization config cannot be read: {one_line(error)}; save the pipeline again"
            ) from None
        if config.kernels not in ("int", "fake") or sum(map(len, config.schemes.values())) > len(layers):
            raise UserError("the quantization config names a layer twice, or kernels other than int and fake; "
                            "save the pipeline again")  # fmt: skip
        return config

    def __repr__(self) -> str:
        packed = sum(map(len, self.schemes.values()))
        return f"BitPlanConfig({self.component}, {packed} packed layers, {self.kernels} kernels)"


def transform_parameters(plan: Plan, address: str, scheme: Scheme) -> dict[str, Tensor]:
    """Returns the fitted parameters of a layer's transforms, by their names in the layer."""
    parameters: dict[str, Tensor] = {}
    for term in scheme.transforms:
        arrays = plan.parameters.get((plan.owner_of(address, str(term)), str(term)), {})
        parameters |= named(term, {name: torch.from_numpy(array.copy()) for name, array in arrays.items()})
    return parameters


def _checked(values: Sequence[float]) -> dict[str, float]:
    """Returns the ranges by their names in plans. Raises ActivationError, or TypeError unless there are one or two."""
    return {name: value for name, value in asdict(ActivationScales(*values)).items() if value is not None}


def component_config(
    plan: Plan, component: str, kernels: str = "int", expected: CheckpointState | None = None
) -> BitPlanConfig:
    """Returns the config of one component of the plan. expected: the plan to check float weights against, or None."""
    prefix = f"{component}."
    schemes: dict[str, list[str]] = {}
    for address, scheme in plan.schemes.items():
        if address.startswith(prefix) and scheme != "keep":
            schemes.setdefault(scheme, []).append(address.removeprefix(prefix))
    static = {address.removeprefix(prefix) for address, scheme in plan.parsed.items() if scheme.inputs.static}
    observed: Mapping[str, Any] = plan.calibration.get("ranges", {})
    ranges = {
        path: [entry["tensor"], *([entry["first"]] if "first" in entry else [])]
        for address, entry in observed.items()
        if (path := address.removeprefix(prefix)) in static and address.startswith(prefix)
    }
    source = {"name": plan.model["name"], "fingerprint": plan.model["fingerprint"]}
    return BitPlanConfig(component, schemes, ranges, kernels, source, expected)
