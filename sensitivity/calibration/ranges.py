"""Calibration: the range of every layer's input over some runs, by hooks that keep no activations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from bitplan.sensitivity.calibration.observers import OBSERVERS, Observer

CONSTANT = 1e-2  # a token is constant when each number stays within this share of its own and the mean magnitude
DISTINCT = 1e-3  # two inputs differ when the mean of their other tokens moves by this share of its length


class CalibrationError(ValueError):
    """A run from which no ranges can be learnt."""


@dataclass(frozen=True)
class ActivationRange:
    """The magnitudes of one layer's input.

    absmax: of everything; 0 for integers, which are row numbers and have no magnitude to round.
    For inputs (batch, tokens, channels) with 2 tokens or more in every call also:
    first_absmax of token 0, rest_absmax of all the others, and first_constant: whether token 0 was the same vector
    in every call and batch row while the others were not. Else None, None and False.
    calls: of the layer; samples: batch rows over all calls.
    """

    absmax: float
    first_absmax: float | None
    rest_absmax: float | None
    first_constant: bool
    calls: int
    samples: int


class _FirstToken:
    """Whether token 0 stays the same while the rest changes; holds two vectors and no activations."""

    def __init__(self, observer: type[Observer]) -> None:
        self.first, self.rest = observer(), observer()
        self._token: torch.Tensor | None = None
        self._others: torch.Tensor | None = None
        self._same, self._varied = True, False

    def see(self, x: torch.Tensor, magnitudes: torch.Tensor) -> None:
        """x: (batch, tokens, channels)."""
        self.first.see(magnitudes[:, :1])
        self.rest.see(magnitudes[:, 1:])
        if not self._same:
            return
        token, others = x[:, 0].float(), x[:, 1:].float().mean(1)
        if self._token is None or self._others is None:
            self._token, self._others = token[0].clone(), others[0].clone()
        drift, allowed = (token - self._token).abs(), CONSTANT * (self._token.abs() + self._token.abs().mean())
        self._same = bool((drift <= allowed).all())
        moved = (others - self._others).norm(dim=-1) > DISTINCT * self._others.norm()
        self._varied = self._varied or bool(moved.any())

    @property
    def constant(self) -> bool:
        return self._same and self._varied


class _Stream:
    """All that is known so far of one layer's input."""

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


def _watch(
    streams: dict[str, _Stream], name: str, observer: type[Observer], _: nn.Module, args: tuple[object, ...],
    kwargs: Mapping[str, object],
) -> None:  # fmt: skip
    """The hook: take in what the layer called `name` is given first, or as its `input`."""
    given = args[0] if args else kwargs.get("input")
    if not isinstance(given, torch.Tensor):
        raise CalibrationError(f"layer {name} was called without a tensor as its first argument; leave it out")
    x = given.detach()
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

    layers: name -> module. observer: a key of `OBSERVERS`. Layers that `run` never calls are absent from the answer.
    The hooks are gone afterwards whatever happens. Raises CalibrationError, naming the first layer in calling order
    whose input is not finite, or for an unknown observer.
    """
    if observer not in OBSERVERS:
        raise CalibrationError(f"no observer is called {observer!r}; choose one of {', '.join(OBSERVERS)}")
    streams: dict[str, _Stream] = {}
    handles = []
    try:
        for name, layer in layers.items():
            watch = partial(_watch, streams, name, OBSERVERS[observer])
            handles.append(layer.register_forward_pre_hook(watch, with_kwargs=True))
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return {name: streams[name].range() for name in layers if name in streams}
