"""Calibration: measures the range of every layer's input during some runs, by hooks that store no activations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from bitplan.sensitivity.calibration.observers import OBSERVERS, Observer

CONSTANT = 1e-2  # a token is constant if each number changes by at most this share of its own and the mean magnitude
DISTINCT = 1e-3  # two inputs differ if the mean of their other tokens changes by more than this share of its length


class CalibrationError(ValueError):
    """A run from which no ranges can be measured."""


@dataclass(frozen=True)
class ActivationRange:
    """The magnitudes of one layer's input.

    The fields about token 0 are None, None and False unless the input is (batch, tokens, channels) with at least 2
    tokens in every call.

    Attributes:
        absmax: largest magnitude; 0 for integers, which are row numbers and are not rounded.
        first_absmax: that of token 0.
        rest_absmax: that of all other tokens.
        first_constant: whether token 0 was the same vector in every call and batch row while the others were not.
        calls: the number of calls of the layer.
        samples: the number of batch rows in all calls.
    """

    absmax: float
    first_absmax: float | None
    rest_absmax: float | None
    first_constant: bool
    calls: int
    samples: int


class _FirstToken:
    """Measures whether token 0 is constant while the others change. Stores two vectors and no activations."""

    def __init__(self, observer: type[Observer]) -> None:
        self.first, self.rest = observer(), observer()
        self._token: torch.Tensor | None = None
        self._others: torch.Tensor | None = None
        self._same, self._varies = True, False

    def see(self, x: torch.Tensor, magnitudes: torch.Tensor) -> None:
        """Add an input x, (batch, tokens, channels), and its magnitudes."""
        self.first.see(magnitudes[:, :1])
        self.rest.see(magnitudes[:, 1:])
        if not self._same:
            return
        token, others = x[:, 0].float(), x[:, 1:].float().mean(1)
        if self._token is None or self._others is None:
            self._token, self._others = token[0].clone(), others[0].clone()
        change, allowed = (token - self._token).abs(), CONSTANT * (self._token.abs() + self._token.abs().mean())
        self._same = bool((change <= allowed).all())
        changed = (others - self._others).norm(dim=-1) > DISTINCT * self._others.norm()
        self._varies = self._varies or bool(changed.any())

    @property
    def constant(self) -> bool:
        return self._same and self._varies


class _Stream:
    """The statistics of one layer's input."""

    def __init__(self, observer: type[Observer]) -> None:
        self.whole = observer()
        self.tokens: _FirstToken | None = _FirstToken(observer)
        self.calls = self.samples = 0

    def see(self, x: torch.Tensor) -> None:
        self.calls, self.samples = self.calls + 1, self.samples + (len(x) if x.ndim else 1)
        if not x.is_floating_point():
            self.tokens = None
            return
        magnitudes = x.abs()
        self.whole.see(magnitudes)
        if self.tokens and x.ndim == 3 and x.shape[1] >= 2:
            self.tokens.see(x, magnitudes)
        else:
            self.tokens = None

    def range(self) -> ActivationRange:
        if self.tokens is None:
            return ActivationRange(self.whole.absmax(), None, None, False, self.calls, self.samples)
        first, rest = self.tokens.first.absmax(), self.tokens.rest.absmax()
        return ActivationRange(self.whole.absmax(), first, rest, self.tokens.constant, self.calls, self.samples)


def _observe(
    streams: dict[str, _Stream], name: str, observer: type[Observer], _: nn.Module, args: tuple[object, ...],
    kwargs: Mapping[str, object],
) -> None:  # fmt: skip
    """The hook of a layer: adds its first argument, or its argument `input`, to the statistics."""
    argument = args[0] if args else kwargs.get("input")
    if not isinstance(argument, torch.Tensor):
        raise CalibrationError(f"layer {name} was called without a tensor as its first argument; leave it out")
    x = argument.detach()
    if not x.numel():
        return
    bad = int((~torch.isfinite(x)).sum())
    if bad:
        raise CalibrationError(
            f"{bad} of {x.numel()} inputs of layer {name} are not finite; check the weights before it and the dtype"
        )
    streams.setdefault(name, _Stream(observer)).see(x)


def calibrate(
    layers: Mapping[str, nn.Module], run: Callable[[], object], observer: str = "minmax"
) -> dict[str, ActivationRange]:
    """Call `run` once and return the range of each layer's input (its first argument), in their order.

    Layers that `run` never calls are absent from the result.

    Args:
        layers: name -> module.
        run: runs the modules.
        observer: a key of `OBSERVERS`.

    Raises:
        CalibrationError: the observer is unknown, or the input of a layer is not finite; names the first such layer.
    """
    if observer not in OBSERVERS:
        raise CalibrationError(f"no observer is called {observer!r}; choose one of {', '.join(OBSERVERS)}")
    streams: dict[str, _Stream] = {}
    handles = []
    try:
        for name, layer in layers.items():
            observe = partial(_observe, streams, name, OBSERVERS[observer])
            handles.append(layer.register_forward_pre_hook(observe, with_kwargs=True))
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return {name: streams[name].range() for name in layers if name in streams}
