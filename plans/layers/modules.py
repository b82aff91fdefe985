"""Layers that hold packed weights, in place of those of `bitplan.plans.kinds`.

They are subclasses of the float modules, so that code which looks for those finds them. Beside the bias they hold
`codes`, `scale`, `zero` (affine only) and `input_range` (static activations only), parameters without a gradient.
A layer may lie on any device, also on one where nothing runs its scheme, and runs with the kernel of the device where
its codes are just then: offloading moves tensors past `.to`, so that only then it is known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bitplan.plans.formats import Packed, dequantize, empty, quantize
from bitplan.plans.inputs.integer import ActivationError, ActivationScales
from bitplan.plans.kernels import REFERENCE, Kernel, KernelError, choose_kernel, geometry_of
from bitplan.plans.kinds import CLASSES, KINDS
from bitplan.plans.layers.guards import guarded, refuse_backward
from bitplan.plans.layers.stored import Stored
from bitplan.plans.scheme import Scheme

STORED = ("codes", "scale", "zero", "input_range")
FLOAT: dict[str, type[nn.Module]] = {kind.name: getattr(nn, kind.layer) for kind in KINDS.values()}


class _Packed(nn.Module):
    """What all layers share; made by `quantize_module` and `empty_module` only."""

    kind: str  # of `bitplan.plans.kinds`
    codes: Stored
    scale: Stored | None
    zero: Stored | None
    input_range: Stored | None
    compute: Tensor
    bias: nn.Parameter | None
    scales: ActivationScales | None  # of static activations, as numbers: a compiler cannot read them from a tensor
    chosen: dict[str, Kernel]  # by type of device; filled as the layer comes to run there

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        # what meets a layer may make others of its type, as LoRA does of a convolution: those are float ones
        return FLOAT[cls.kind](*args, **kwargs) if args or kwargs else object.__new__(cls)

    def _fill(
        self, module: Any, packed: Packed, scheme: Scheme, input_range: Tensor | None, real: bool
    ) -> None:  # fmt: skip
        nn.Module.__init__(self)
        for name in KINDS[self.kind].attributes:
            setattr(self, name, getattr(module, name))
        self.shape, self.scheme, self.geometry = packed.shape, scheme, geometry_of(module)
        self.real, self.chosen = real, {}
        self.register_parameter("bias", bias_of(module))
        for name, tensor in zip(STORED, (packed.codes, packed.scale, packed.zero, input_range), strict=True):
            self.register_parameter(name, None if tensor is None else Stored(tensor))
        self.settle()
        # empty; `.to(dtype)` reaches it as it does any float tensor, so it says in which type the layer computes
        device = "cpu" if packed.codes.is_meta else packed.codes.device
        self.register_buffer("compute", torch.empty(0, dtype=module.weight.dtype, device=device), persistent=False)
        self.register_forward_hook(refuse_backward)
        self.train(module.training)

    @property
    def kernel(self) -> Kernel:
        """What runs this layer on the device where its codes are. Raises KernelError where nothing does."""
        device = self.codes.device
        if device.type not in self.chosen:
            chosen = choose_kernel(self.scheme, self.kind, device, True, self.geometry) if self.real else REFERENCE
            self.chosen[device.type] = chosen
        return self.chosen[device.type]

    @property
    def packed(self) -> Packed:
        """The stored weight."""
        return Packed(self.codes, self.scale, self.zero, self.shape, self.scheme.weight)

    @property
    def weight(self) -> Tensor:
        """The weight that the codes stand for, in the type of the layer; made anew at each read, and refuses writes."""
        return guarded(dequantize(self.packed).to(self.compute.dtype))

    def settle(self) -> None:
        """Whoever puts tensors in calls this: it makes them such as the layer holds, and reads the numbers of
        `input_range`."""
        self._keep_stored()
        given = self.input_range is not None and not self.input_range.is_meta
        self.scales = ActivationScales(*self.input_range.tolist()) if given else None

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.settle()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        super()._apply(fn, recurse)
        self._keep_stored()
        return self

    def _keep_stored(self) -> None:
        """Torch puts plain parameters in their place on the way from or to the meta device."""
        for name in STORED:
            tensor = self._parameters[name]
            if tensor is not None and not isinstance(tensor, Stored):
                self._parameters[name] = Stored(tensor.data)

    def extra_repr(self) -> str:
        kernel = self.chosen.get(self.codes.device.type)
        return f"{super().extra_repr()}, scheme={self.scheme}, kernel={kernel.name if kernel else None}"


class QuantLinear(_Packed, nn.Linear):
    """nn.Linear with packed weights: (..., in_features) of any float type to (..., out_features) of the same."""

    kind = "linear"

    def forward(self, input: Tensor) -> Tensor:
        return self.kernel.run(input, self.packed, self.scheme, self.bias, self.scales, None)


class _PackedConv(_Packed):
    """(N, C, ...) or (C, ...) of any float type to the same type."""

    def forward(self, input: Tensor) -> Tensor:
        batched = input.dim() == KINDS[self.kind].dims + 2
        batch = input if batched else input.unsqueeze(0)
        out = self.kernel.run(batch, self.packed, self.scheme, self.bias, self.scales, self.geometry)
        return out if batched else out.squeeze(0)


class QuantConv1d(_PackedConv, nn.Conv1d):
    """nn.Conv1d with packed weights."""

    kind = "conv1d"


class QuantConv2d(_PackedConv, nn.Conv2d):
    """nn.Conv2d with packed weights."""

    kind = "conv2d"


class QuantConv3d(_PackedConv, nn.Conv3d):
    """nn.Conv3d with packed weights."""

    kind = "conv3d"


class QuantEmbedding(_Packed, nn.Embedding):
    """nn.Embedding with packed weights: row numbers (...) to (..., embedding_dim) of the layer's float type."""

    kind = "embedding"

    def forward(self, input: Tensor) -> Tensor:
        return self.kernel.run(input, self.packed, self.scheme, None, None, None).to(self.compute.dtype)


PACKED: dict[str, type[_Packed]] = {
    made.kind: made for made in (QuantLinear, QuantConv1d, QuantConv2d, QuantConv3d, QuantEmbedding)
}


def kind_of(module: nn.Module) -> str | None:
    """The name in `bitplan.plans.kinds` of a layer that can be quantized; None for all other modules."""
    kind = _class_of(module)
    return None if kind is None or refusal_of(module) else kind


def refusal_of(module: nn.Module) -> str | None:
    """Why a module of a layer's class, or of a subclass, is none to plan; None for those that are, and for others."""
    kind = _class_of(module)
    if kind is None:
        return None
    if isinstance(module, _Packed):
        return "it is packed already"
    own = [name for name in ("forward", "_conv_forward") if hasattr(FLOAT[kind], name)
           and getattr(type(module), name) is not getattr(FLOAT[kind], name)]  # fmt: skip
    if own:
        return f"{type(module).__name__} has a {own[0]} of its own, which may do anything with the weight"
    if not isinstance(module._parameters.get("weight"), nn.Parameter):
        return "its weight is computed anew at each call, or not there yet"
    if getattr(module, "max_norm", None) is not None:
        return "with max_norm, looking up rows rewrites them"
    return "its sparse gradients have no packed weight to go to" if getattr(module, "sparse", False) else None


def bias_of(module: nn.Module) -> nn.Parameter | None:
    """An embedding has none."""
    return getattr(module, "bias", None)


def _class_of(module: nn.Module) -> str | None:
    return next((name for name, layer in FLOAT.items() if isinstance(module, layer)), None)


def quantize_module(module: nn.Module, scheme: Scheme, kernel: Kernel, scales: ActivationScales | None = None) -> Any:
    """`module`, a float layer, with its weight stored and run as `scheme` says, of `PACKED`; it shares the bias.

    Raises KernelError where `kernel` does not run that layer, ActivationError where static activations lack a range,
    FormatError for weights that cannot be stored.
    """
    kind = _kind(module)
    reason = kernel.supports(scheme, kind, module.weight.device, geometry_of(module))
    if reason:
        raise KernelError(f"{kernel.name} does not run {scheme} on this {kind} layer: {reason}")
    ranges = _range_tensor(scheme, scales, module.weight.device)
    layer = _made(module, quantize(module.weight, scheme.weight), scheme, ranges, kernel.real)
    layer.chosen[module.weight.device.type] = kernel
    return layer


def empty_module(module: nn.Module, scheme: Scheme, real: bool = True) -> Any:
    """What `quantize_module` gives, without data: its tensors are on the meta device, for stored ones to take their
    place. real: with the kernel that `choose_kernel` names when the layer first runs, else with the simulation.

    Raises KernelError for a module that is no layer, FormatError for `keep`.
    """
    count = scheme.activation.static + scheme.activation.first_token
    ranges = torch.empty(count, dtype=torch.float32, device="meta") if count else None
    return _made(module, empty(module.weight.shape, scheme.weight), scheme, ranges, real)


def stored_names(scheme: Scheme) -> tuple[str, ...]:
    """The names of a packed layer's tensors in its state dict, bias apart."""
    zero = ("zero",) if scheme.weight.affine else ()
    return ("codes", "scale", *zero, *(("input_range",) if scheme.activation.static else ()))


def stored_tensors(weight: Tensor, scheme: Scheme, scales: ActivationScales | None = None) -> dict[str, Tensor]:
    """Those tensors for a layer with `weight`. Raises as `quantize_module`."""
    packed, ranges = quantize(weight, scheme.weight), _range_tensor(scheme, scales, weight.device)
    held = {"codes": packed.codes, "scale": packed.scale, "zero": packed.zero, "input_range": ranges}
    return {name: tensor for name, tensor in held.items() if tensor is not None}


def weight_bytes(module: nn.Module) -> int:
    """Bytes of a layer's stored weight, bias apart: codes, scale and zero, or the float weight."""
    return module.packed.nbytes if isinstance(module, _Packed) else module.weight.nbytes


def module_bytes(module: nn.Module) -> int:
    """Bytes of all parameters and buffers of a module, each tensor once, bias included."""
    return sum(tensor.nbytes for tensor in {*module.parameters(), *module.buffers()})


def _kind(module: nn.Module) -> str:
    kind = kind_of(module)
    if kind is None:
        why = refusal_of(module) or f"only {CLASSES} can"
        raise KernelError(f"a {type(module).__name__} cannot be quantized: {why}; leave it as it is")
    return kind


def _made(module: nn.Module, packed: Packed, scheme: Scheme, input_range: Tensor | None, real: bool) -> Any:
    made: Any = object.__new__(PACKED[_kind(module)])
    made._fill(module, packed, scheme, input_range, real)
    return made


def _range_tensor(scheme: Scheme, scales: ActivationScales | None, device: torch.device) -> Tensor | None:
    if not scheme.activation.static:
        return None
    if scales is None or (scheme.activation.first_token and scales.first is None):
        raise ActivationError(f"{scheme} needs the calibrated range of this layer's input; calibrate it first")
    held = [scales.tensor, scales.first] if scheme.activation.first_token else [scales.tensor]
    return torch.tensor(held, dtype=torch.float32, device=device)
