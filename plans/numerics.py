"""What a scheme does to a weight and to an input, in plain torch: the one place where transforms are applied.

The names of a layer's fitted parameters are `input_range` for calibrated ranges, and `TRANSFORM_NAME` for what a
transform was fitted with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bitplan.plans.formats import FORMATS
from bitplan.plans.formats.storage import stored_bytes
from bitplan.plans.inputs import INPUTS
from bitplan.plans.inputs.base import ActivationError, ActivationScales, Inputs
from bitplan.plans.kinds import KINDS
from bitplan.plans.scheme import Scheme, Term, range_keys
from bitplan.plans.transforms import TRANSFORMS
from bitplan.plans.transforms.base import Fitted, Transform

RANGE = "input_range"
NONE: Fitted = {}


def member_of(term: Term) -> Transform:
    """The code of a transform."""
    member: Transform = TRANSFORMS[term.name].member
    return member


def range_tensor(ranges: Mapping[str, float] | None) -> dict[str, Tensor]:
    """Calibrated ranges, `tensor` and perhaps `first`, as a fitted parameter; nothing for None."""
    if ranges is None:
        return {}
    numbers = [ranges["tensor"], *([ranges["first"]] if "first" in ranges else [])]
    return {RANGE: torch.tensor(numbers, dtype=torch.float32, device="cpu")}


def inputs_of(scheme: Scheme) -> Inputs:
    """The code of its inputs."""
    member: Inputs = INPUTS[scheme.inputs.kind].member
    return member


def import_code(scheme: Scheme) -> None:
    """Imports the code of all that is in `scheme`, which the first use would do: under `torch.compile` that is an
    error."""
    parts = (FORMATS[scheme.weight.kind], INPUTS[scheme.inputs.kind])
    for line in (*parts, *(TRANSFORMS[term.name] for term in scheme.transforms)):
        _ = line.member


def layout_of(scheme: Scheme, shape: Sequence[int]) -> dict[str, Tensor]:
    """The fitted parameters of a layer with a weight of `shape`, without data: on the meta device."""
    count = len(range_keys(scheme))
    held = {RANGE: torch.empty(count, dtype=torch.float32, device="meta")} if count else {}
    for term in scheme.transforms:
        held |= named(term, member_of(term).layout(shape[0], shape[1], term.numbers))
    return held


def scheme_bytes(scheme: Scheme, shape: Sequence[int], keep_itemsize: int) -> int:
    """Bytes of a weight of `shape` at the scheme, with what its transforms hold. keep_itemsize: bytes of a number in
    full precision."""
    fitted = sum(tensor.nbytes for name, tensor in layout_of(scheme, shape).items() if name != RANGE)
    return stored_bytes(shape, scheme.weight, keep_itemsize) + fitted


def fitted_for(scheme: Scheme, shape: Sequence[int], fitted: Fitted, device: torch.device) -> dict[str, Tensor]:
    """The parameters that the scheme needs, from `fitted`, on the device.

    Raises ActivationError for a parameter that is missing or has another shape.
    """
    found = {}
    for name, like in layout_of(scheme, shape).items():
        if name not in fitted or (name == RANGE and len(fitted[name]) < len(like)):
            what = "the calibrated range of this layer's input" if name == RANGE else f"the fitted parameter {name}"
            raise ActivationError(f"{scheme} needs {what}; calibrate it first")
        tensor = fitted[name][: len(like)] if name == RANGE else fitted[name]
        if tensor.shape != like.shape:
            raise ActivationError(f"{scheme} needs {name} of shape {tuple(like.shape)}, not {tuple(tensor.shape)}; "
                                  "calibrate it again")  # fmt: skip
        found[name] = tensor.to(device=device, dtype=like.dtype)
    return found


def scales_in(fitted: Fitted) -> ActivationScales | None:
    """The calibrated ranges as numbers, which a compiler cannot read from a tensor."""
    held = fitted.get(RANGE)
    return None if held is None or held.is_meta else ActivationScales(*held.tolist())


def named(term: Term, fitted: Fitted) -> dict[str, Tensor]:
    """The parameters of one transform, by the names that a layer holds them under."""
    return {f"{term.name}_{name}": tensor for name, tensor in fitted.items()}


def own(term: Term, fitted: Fitted) -> dict[str, Tensor]:
    """The parameters of one transform, by its own names."""
    prefix = f"{term.name}_"
    return {name.removeprefix(prefix): tensor for name, tensor in fitted.items() if name.startswith(prefix)}


def transformed_weight(weight: Tensor, scheme: Scheme, fitted: Fitted) -> Tensor:
    """The (O, C, ...) weight as it is before it is rounded; itself where the scheme has no transform."""
    for term in scheme.transforms:
        changed = member_of(term).weight(weight.movedim(1, -1), own(term, fitted), term.numbers)
        weight = changed.movedim(-1, 1)
    return weight


def transformed_input(x: Tensor, kind: str, scheme: Scheme, fitted: Fitted) -> Tensor:
    """A layer's input as it is before it is rounded; itself where the scheme has no transform."""
    channels = -KINDS[kind].dims - 1
    for term in scheme.transforms:
        changed = member_of(term).inputs(x.movedim(channels, -1), own(term, fitted), term.numbers)
        x = changed.movedim(-1, channels)
    return x


def rounded_input(x: Tensor, kind: str, scheme: Scheme, scales: ActivationScales | None) -> Tensor:
    """A transformed input rounded to its codes and back, in its own type. Raises ActivationError."""
    return inputs_of(scheme).fake(KINDS[kind].rows(x), scheme.inputs, scales).view(x.shape)


def fit(term: Term, weights: Sequence[Tensor], observed: Mapping[str, Any]) -> dict[str, Tensor]:
    """The parameters of a transform, by its own names.

    Args:
        term: the transform.
        weights: (O, C, ...) of the layers that share them.
        observed: what calibration saw of their input.
    """
    last = [weight.detach().movedim(1, -1) for weight in weights]
    return dict(member_of(term).fit(last, observed, term.numbers))
