"""Layers that hold packed weights, in place of those of `bitplan.plans.kinds`.

They are subclasses of the float modules, so that code which looks for those finds them. Beside the bias they hold, as
parameters without a gradient, the tensors of their weight format (`codes`, `scale` and, if affine, `zero` of integers)
and the fitted parameters of their scheme (`input_range` of static inputs). A layer may lie on any device, also on one
where nothing runs its scheme, and runs with the kernel of the device on which its tensors are at each call: offloading
moves tensors past `.to`, so that the device is known only then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bitplan.plans.formats.storage import Packed, dequantize, empty
from bitplan.plans.inputs.base import ActivationScales
from bitplan.plans.kernels import REFERENCE, Held, Kernel, KernelError, choose_kernel, geometry_of
from bitplan.plans.kernels.base import Geometry, output_of
from bitplan.plans.kinds import CLASSES, KINDS
from bitplan.plans.layers.carried import carry_attributes, share_hooks
from bitplan.plans.layers.guards import NO_RECORDING, check_call, computed, refuse_backward
from bitplan.plans.layers.stored import COMPUTE, Stored, Untrained, stored_weight
from bitplan.plans.numerics import NONE, import_code, layout_of, scales_in
from bitplan.plans.scheme import Scheme
from bitplan.plans.transforms.base import Fitted

FLOAT: dict[str, type[nn.Module]] = {kind.name: getattr(nn, kind.layer) for kind in KINDS.values()}


class _Packed(nn.Module):
    """What all layers share; made by `quantize_module` and `empty_module` only.

    Attributes:
        kind: of `bitplan.plans.kinds`.
        parts: names of the parameters that hold the stored weight.
        fits: names of the parameters that hold what was fitted.
        scales: calibrated ranges of static inputs as numbers: a compiler cannot read them from a tensor.
        chosen: kernel by type of device; filled when the layer first runs there.
    """

    kind: str
    shape: tuple[int, ...]
    scheme: Scheme
    geometry: Geometry
    real: bool
    parts: tuple[str, ...]
    fits: tuple[str, ...]
    scales: ActivationScales | None
    chosen: dict[str, Kernel]
    compute: Untrained
    bias: nn.Parameter | None

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        # code that copies a layer's type, as LoRA does of a convolution, gets a float one
        return FLOAT[cls.kind](*args, **kwargs) if args or kwargs else object.__new__(cls)

    def _fill(self, module: Any, packed: Packed, scheme: Scheme, fitted: Fitted, real: bool) -> None:
        nn.Module.__init__(self)
        vars(self).update({name: getattr(module, name) for name in KINDS[self.kind].attributes})
        self.shape, self.scheme, self.geometry = packed.shape, scheme, geometry_of(module)
        self.real, self.chosen = real, {}
        # empty; `.to(dtype)` reaches it as it does any float tensor, so it says in which type the layer computes; the
        # first parameter, since pipelines ask `next(module.parameters())` for the type of their inputs
        device = "cpu" if packed.device.type == "meta" else packed.device
        self.register_parameter(COMPUTE, Untrained(torch.empty(0, dtype=module.weight.dtype, device=device)))
        self.register_parameter("bias", bias_of(module))
        self.parts, self.fits = tuple(packed.tensors), tuple(fitted)
        for name, tensor in {**packed.tensors, **fitted}.items():
            self.register_parameter(name, Stored(tensor))
        self.settle()
        self.train(module.training)
        carry_attributes(module, self, OWN)

    @property
    def device(self) -> torch.device:
        """Where the stored weight is."""
        return self._stored(self.parts[:1])[self.parts[0]].device

    @property
    def kernel(self) -> Kernel:
        """What runs this layer on the device where its weight is. Raises KernelError where nothing does."""
        device = self.device
        if device.type not in self.chosen:
            chosen = choose_kernel(self.scheme, self.kind, device, True, self.geometry) if self.real else REFERENCE
            self.chosen[device.type] = chosen
        return self.chosen[device.type]

    @property
    def packed(self) -> Packed:
        """The stored weight."""
        return Packed(self._stored(self.parts), self.shape, self.scheme.weight)

    @property
    def held(self) -> Held:
        """What a kernel is called with."""
        return Held(self.packed, self.scheme, self.kind, self.geometry, self.bias, self.scales, self._stored(self.fits))

    def _stored(self, names: tuple[str, ...]) -> dict[str, Tensor]:
        held: Any = self._parameters  # a tenth of the time of attributes
        return {name: held[name] for name in names}

    @property
    def weight(self) -> Tensor:
        """The weight that the codes stand for, after the scheme's transforms, in the type of the layer; computed where
        its numbers are used, and refuses writes."""
        packed, dtype, looks_up = self.packed, self.compute.dtype, KINDS[self.kind].looks_up
        return computed(lambda: dequantize(packed).to(dtype), self.shape, dtype, packed.device, looks_up)

    @property
    def __jit_ignored_attributes__(self) -> list[str]:
        """What torch.jit reads of a module first. Raises KernelError."""
        raise KernelError(NO_RECORDING.format("torch.jit"))

    def forward(self, input: Tensor) -> Tensor:
        """The output of the kernel. Under autocast, for inputs that a float layer would cast, in the type of autocast.

        Raises KernelError under transforms of torch that packed layers do not support.
        """
        check_call(self, input)
        alone = KINDS[self.kind].dims and input.dim() != KINDS[self.kind].dims + 2  # a sample without a batch
        x, device = input.unsqueeze(0) if alone else input, input.device.type
        if x.is_floating_point() and device != "meta" and torch.is_autocast_enabled(device):
            cast = x if x.dtype == torch.float64 else x.to(torch.get_autocast_dtype(device))
            with torch.autocast(device, enabled=False):
                out = output_of(self.kernel, cast, self.held)
        else:
            out = output_of(self.kernel, x, self.held)
        out = refuse_backward(self, input, out)
        return out.squeeze(0) if alone else out

    def settle(self) -> None:
        """Code that assigns tensors calls this: it wraps them as `Stored`, and reads the numbers of `input_range`."""
        import_code(self.scheme)  # before a compiler traces the first call
        self._keep_stored()
        self.scales = scales_in(self._stored(self.fits))

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.settle()

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        own = {f"{prefix}{COMPUTE}": self._parameters[COMPUTE]}  # files do not contain it
        super()._load_from_state_dict({**own, **state_dict}, prefix, *args, **kwargs)
        self.settle()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        asked = self.compute.asked
        super()._apply(fn, recurse)
        self._keep_stored()
        self.compute.asked = asked
        return self

    def _keep_stored(self) -> None:
        """Torch puts plain parameters in their place on the way from or to the meta device."""
        for name in (*self.parts, *self.fits):
            if (tensor := self._parameters[name]) is not None and not isinstance(tensor, Stored):
                self._parameters[name] = Stored(tensor.data)
        if not isinstance(self.compute, Untrained):
            self._parameters[COMPUTE] = Untrained(self.compute.data)

    def extra_repr(self) -> str:
        name = getattr(self.chosen.get(self.device.type), "name", None)
        return f"{super().extra_repr()}, scheme={self.scheme}, kernel={name}"


OWN = frozenset(_Packed.__annotations__)  # attributes that a packed layer has for itself


class QuantLinear(_Packed, nn.Linear):
    """nn.Linear with packed weights: (..., in_features) of any float type to (..., out_features) of the same."""

    kind = "linear"


class QuantConv1d(_Packed, nn.Conv1d):
    """nn.Conv1d with packed weights: (N, C, L) or (C, L) of any float type to the same type."""

    kind = "conv1d"


class QuantConv2d(_Packed, nn.Conv2d):
    """nn.Conv2d with packed weights: (N, C, H, W) or (C, H, W) of any float type to the same type."""

    kind = "conv2d"


class QuantConv3d(_Packed, nn.Conv3d):
    """nn.Conv3d with packed weights: (N, C, D, H, W) or (C, D, H, W) of any float type to the same type."""

    kind = "conv3d"


class QuantEmbedding(_Packed, nn.Embedding):
    """nn.Embedding with packed weights: row numbers (...) to (..., embedding_dim) of the layer's float type."""

    kind = "embedding"

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).to(self.compute.dtype)


PACKED: dict[str, type[_Packed]] = {
    made.kind: made for made in (QuantLinear, QuantConv1d, QuantConv2d, QuantConv3d, QuantEmbedding)
}


def is_packed(module: object) -> bool:
    """Whether a module is a packed layer."""
    return isinstance(module, _Packed)


def kind_of(module: nn.Module) -> str | None:
    """The name in `bitplan.plans.kinds` of a layer that can be quantized; None for all other modules."""
    kind = _class_of(module)
    return None if kind is None or refusal_of(module) else kind


def refusal_of(module: nn.Module) -> str | None:
    """Why a module of a layer's class, or of a subclass, is none to plan; None for those that are, and for others."""
    kind = _class_of(module)
    if kind is None:
        return None
    if is_packed(module):
        return "it is packed already"
    own = [name for name in ("forward", "_conv_forward") if hasattr(FLOAT[kind], name)
           and getattr(type(module), name) is not getattr(FLOAT[kind], name)]  # fmt: skip
    if own:
        return f"{type(module).__name__} has a {own[0]} of its own, which may do anything with the weight"
    weight = module._parameters.get("weight")
    if not isinstance(weight, nn.Parameter):
        return "its weight is computed anew at each call, or not there yet"
    if type(weight) is not nn.Parameter:
        return f"its weight is a {type(weight).__name__}, as another library stores it"
    if getattr(module, "max_norm", None) is not None:
        return "with max_norm, looking up rows rewrites them"
    return "its sparse gradients have no packed weight to go to" if getattr(module, "sparse", False) else None


def bias_of(module: nn.Module) -> nn.Parameter | None:
    """An embedding has none."""
    return getattr(module, "bias", None)


def _class_of(module: nn.Module) -> str | None:
    return next((name for name, layer in FLOAT.items() if isinstance(module, layer)), None)


def quantize_module(module: nn.Module, scheme: Scheme, kernel: Kernel, fitted: Fitted = NONE) -> Any:
    """`module`, a float layer, with its weight stored and run as `scheme` says, of `PACKED`; it shares the bias.

    Raises KernelError where `kernel` does not run that layer, ActivationError for a fitted parameter that is missing,
    FormatError for weights that cannot be stored.
    """
    kind = _kind(module)
    reason = kernel.supports(scheme, kind, module.weight.device, geometry_of(module))
    if reason:
        raise KernelError(f"{kernel.name} does not run {scheme} on this {kind} layer: {reason}")
    packed, held = stored_weight(module.weight, scheme, fitted)
    layer = _made(module, packed, scheme, held, kernel.real)
    share_hooks(module, layer)
    layer.chosen[module.weight.device.type] = kernel
    return layer


def empty_module(module: nn.Module, scheme: Scheme, real: bool = True) -> Any:
    """What `quantize_module` gives, without data: its tensors are on the meta device, to be replaced by stored ones.

    real: with the kernel that `choose_kernel` names when the layer first runs, else with the simulation.

    Raises KernelError for a module that is not a layer, FormatError for `keep`.
    """
    shape = module.weight.shape
    return _made(module, empty(shape, scheme.weight), scheme, layout_of(scheme, shape), real)


def weight_bytes(module: nn.Module) -> int:
    """Bytes of a layer's stored weight, bias apart: all tensors of its format, or the float weight."""
    return module.packed.nbytes if is_packed(module) else module.weight.nbytes


def module_bytes(module: nn.Module) -> int:
    """Bytes of all parameters and buffers of a module, each tensor once, bias included."""
    return sum(tensor.nbytes for tensor in {*module.parameters(), *module.buffers()})


def _kind(module: nn.Module) -> str:
    kind = kind_of(module)
    if kind is None:
        why = refusal_of(module) or f"only {CLASSES} can"
        raise KernelError(f"a {type(module).__name__} cannot be quantized: {why}; leave it as it is")
    return kind


def _made(module: nn.Module, packed: Packed, scheme: Scheme, fitted: Fitted, real: bool) -> Any:
    made: Any = object.__new__(PACKED[_kind(module)])
    made._fill(module, packed, scheme, fitted, real)
    return made
