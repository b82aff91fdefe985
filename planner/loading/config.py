"""What a component's config.json says of its packed layers: enough to lay them out, and where the plan came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from diffusers.quantizers.quantization_config import QuantizationConfigMixin

from planner.errors import UserError
from planner.loading import METHOD
from planner.loading.expected import Expected
from plans.activations import ActivationError, ActivationScales
from plans.plan import Plan
from plans.scheme import Scheme, SchemeError, parse_scheme

VERSION = 1


class Method(str, Enum):  # noqa: UP042 - diffusers reads `.value` and compares with texts
    """The name under which both libraries know us."""

    BITPLAN = METHOD


class BitPlanConfig(QuantizationConfigMixin):
    """The packed layers of one component, and how they run. JSON in and out.

    component: its name in the pipeline. schemes: scheme -> the paths, within the component, of the layers that have it;
    layers kept as they are, are left out. ranges: path -> the calibrated range of its input, and that of the first
    token where the scheme has one.
    kernels: `int` or `fake`. source: name and fingerprint of the float model.
    expected: the plan to hold the float weights against, where they are yet to be quantized; not saved.
    """

    def __init__(
        self, component: str, schemes: Mapping[str, Sequence[str]], ranges: Mapping[str, Sequence[float]] | None = None,
        kernels: str = "int", source: Mapping[str, str] | None = None, version: int = VERSION,
        quant_method: str = METHOD, expected: Expected | None = None,
    ) -> None:  # fmt: skip
        if quant_method != METHOD or not isinstance(version, int) or version > VERSION:
            raise UserError(f"this quantization config says {quant_method} version {version}, and this BitPlan reads "
                            f"{METHOD} up to {VERSION}; upgrade bitplan")  # fmt: skip
        self.quant_method = Method.BITPLAN
        self.version, self.component, self.kernels, self.source = version, component, kernels, dict(source or {})
        self.schemes = {scheme: list(paths) for scheme, paths in schemes.items()}
        self.ranges = {path: list(values) for path, values in (ranges or {}).items()}
        self.expected = expected
        self.layers, self.scales = _read(self)

    def to_dict(self) -> dict[str, Any]:
        """As config.json holds it."""
        return {
            "quant_method": METHOD, "version": self.version, "component": self.component, "kernels": self.kernels,
            "source": dict(self.source),
            "schemes": {scheme: list(paths) for scheme, paths in self.schemes.items()},
            "ranges": {path: list(values) for path, values in self.ranges.items()},
        }  # fmt: skip

    def to_diff_dict(self) -> dict[str, Any]:
        """The same; diffusers prints this while loading and does not define it."""
        return self.to_dict()


def _read(config: BitPlanConfig) -> tuple[dict[str, Scheme], dict[str, ActivationScales]]:
    """Path -> scheme, path -> ranges. Raises UserError for a config that is none of ours."""
    try:
        layers = {path: parse_scheme(text) for text, paths in config.schemes.items() for path in paths}
        scales = {path: ActivationScales(*values) for path, values in config.ranges.items()}
    except (SchemeError, ActivationError, TypeError) as error:
        raise UserError(f"the quantization config cannot be read: {error}; save the pipeline again") from None
    if config.kernels not in ("int", "fake") or sum(map(len, config.schemes.values())) > len(layers):
        raise UserError("the quantization config names a layer twice, or kernels other than int and fake; "
                        "save the pipeline again")  # fmt: skip
    return layers, scales


def component_config(plan: Plan, component: str, kernels: str = "int", expected: Expected | None = None) -> Any:
    """The config of one of the plan's components. expected: given where its float weights will be quantized."""
    prefix = f"{component}."
    schemes: dict[str, list[str]] = {}
    for address, scheme in plan.schemes.items():
        if address.startswith(prefix) and scheme != "keep":
            schemes.setdefault(scheme, []).append(address.removeprefix(prefix))
    static = {path for scheme, paths in schemes.items() if parse_scheme(scheme).activation.static for path in paths}
    held: Mapping[str, Any] = plan.calibration.get("ranges", {})
    ranges = {
        path: [entry["tensor"], *([entry["first"]] if "first" in entry else [])]
        for address, entry in held.items()
        if (path := address.removeprefix(prefix)) in static and address.startswith(prefix)
    }
    source = {"name": plan.model["name"], "fingerprint": plan.model["fingerprint"]}
    return BitPlanConfig(component, schemes, ranges, kernels, source, expected=expected)
