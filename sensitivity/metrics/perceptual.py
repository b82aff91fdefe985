"""LPIPS: the distance of images in the layers of a network that was trained on human judgements (Zhang et al. 2018).

The network is an argument: any function that returns the layers' features. `package_network` returns that of the
`lpips` package, which contains its weights except for those of AlexNet, which torchvision downloads.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch

from bitplan.sensitivity.metrics.base import loss_by_frame, probe_by_frame
from bitplan.sensitivity.metrics.squares import Residuals, loss_of, probe_of
from bitplan.sensitivity.table import MeasurementError

INSTALL = "pip install lpips torchvision"
TINY = 1e-10  # added to the length of a feature vector


# (N, 3, H, W) in 0..1 -> for each layer (N, C, h, w) features and (C,) weights >= 0
Network = Callable[[torch.Tensor], Sequence[tuple[torch.Tensor, torch.Tensor]]]


def residuals_of(network: Callable[[], Network]) -> Residuals:
    """Residuals whose sum of squares is eq. 1 of the paper: the weighted squared difference of the unit features,
    averaged over positions and summed over layers."""

    def residuals(full: torch.Tensor, variant: torch.Tensor) -> list[torch.Tensor]:
        layers = zip(network()(full.float()), network()(variant.float()), strict=True)
        return [_difference(a, b, weights) for (a, weights), (b, _) in layers]

    return residuals


def _difference(a: torch.Tensor, b: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    places = a[0, 0].numel()
    return (_unit(b) - _unit(a)) * (weights.view(1, -1, 1, 1).double() / places).sqrt()


def _unit(features: torch.Tensor) -> torch.Tensor:
    wide = features.double()
    return wide / (wide.square().sum(1, keepdim=True) + TINY**2).sqrt()


def missing() -> str | None:
    """Why the package cannot be used, in one line, or None."""
    absent = [name for name in ("lpips", "torchvision") if importlib.util.find_spec(name) is None]
    return f"{' and '.join(absent)} not installed; {INSTALL}" if absent else None


@cache
def package_network() -> Network:
    """The package's network, version 0.1 on AlexNet. Raises MeasurementError if it or its weights are not available."""
    if reason := missing():
        raise MeasurementError(f"lpips: {reason}")
    try:
        import lpips as package

        with contextlib.redirect_stdout(io.StringIO()):
            return network_of(package.LPIPS(net="alex", verbose=False))
    except Exception as error:  # no network, a full disk, a version that does not match torch's
        reason = " ".join(str(error).split())[:150]
        raise MeasurementError(
            f"lpips: its weights are not available ({type(error).__name__}: {reason}); "
            f"put AlexNet's into {torch.hub.get_dir()}/checkpoints, or leave lpips out"
        ) from error


def network_of(model: Any) -> Network:
    """The network of an `lpips.LPIPS`, or of a model with the same parts: `scaling_layer`, `net` and `lins`."""
    model.requires_grad_(False).eval()

    def network(images: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        model.to(images.device)
        try:
            features = model.net(model.scaling_layer(2 * images - 1))
        except RuntimeError as error:
            height, width = images.shape[-2:]
            raise MeasurementError(
                f"lpips: its network cannot process images of {height}x{width} px: {error}"
            ) from error
        weights = [lin.model[-1].weight.flatten().clamp_min(0) for lin in model.lins]
        return list(zip(features, weights, strict=True))

    return network


_RESIDUALS = residuals_of(lambda: package_network())  # the network is loaded when it is needed
lpips = loss_by_frame(4)(loss_of(_RESIDUALS))
lpips_probe = probe_by_frame(4)(probe_of(_RESIDUALS))
