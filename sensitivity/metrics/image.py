"""Structural dissimilarity (1 - SSIM) of the final images, and its probe."""

from __future__ import annotations

import torch
from torch.nn import functional as F  # noqa: N812

from bitplan.sensitivity.metrics.base import loss_by_frame, probe_by_frame
from bitplan.sensitivity.metrics.signs import random_signs
from bitplan.sensitivity.table import MeasurementError

WINDOW, SIGMA = 11, 1.5  # px: Wang et al. 2004, section III.C
C1, C2 = 0.01**2, 0.03**2  # (K1 L)^2 and (K2 L)^2 with L = 1, the range of the pixels


def _window() -> torch.Tensor:
    """The weights of a line of the window, (WINDOW,) float64."""
    offsets = torch.arange(WINDOW, dtype=torch.float64, device="cpu") - WINDOW // 2
    weights = torch.exp(-offsets.square() / (2 * SIGMA**2))
    return weights / weights.sum()


def _blur(x: torch.Tensor) -> torch.Tensor:
    """Gaussian-weighted local means where the window fits: (N, 3, H, W) to (N, 3, H - 10, W - 10)."""
    weights = _window().to(x).expand(x.shape[1], 1, 1, WINDOW)
    return F.conv2d(F.conv2d(x, weights, groups=x.shape[1]), weights.transpose(2, 3), groups=x.shape[1])


def ssim(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Structural similarity of each pair of images (Wang et al. 2004, eq. 13), mean over channels and positions.

    (N, C, H, W) in 0..1 twice to (N,) float64. Raises MeasurementError for images smaller than the window.
    """
    if min(a.shape[-2:]) < WINDOW:
        height, width = a.shape[-2:]
        raise MeasurementError(f"SSIM needs images of {WINDOW}x{WINDOW} px or more, got {height}x{width}")
    a, b = a.double(), b.double()
    mean_a, mean_b = _blur(a), _blur(b)
    var_a, var_b = _blur(a * a) - mean_a.square(), _blur(b * b) - mean_b.square()
    covariance = _blur(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + C1) / (mean_a.square() + mean_b.square() + C1)
    structure = (2 * covariance + C2) / (var_a + var_b + C2)
    return (luminance * structure).flatten(1).mean(1)


@loss_by_frame(4)
def dssim(full: torch.Tensor, variant: torch.Tensor) -> torch.Tensor:
    """1 - SSIM of each image, 0..2, or the mean over the frames of each video.

    (P, 3, H, W) or (P, F, 3, H, W) in 0..1 twice to (P,) float64. Raises MeasurementError like `ssim`.
    """
    return (1 - ssim(full, variant)).clamp_min(0)  # rounding leaves -1e-16 for equal images


@probe_by_frame(4)
def dssim_probe(full: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Weights v, (P, C, H, W), with E[(v.d)^2] = dssim(full, full + d) to second order in d.

    By eq. 13 a window with mean m and variance s loses (mean of d)^2 / (2 m^2 + C1) in luminance and (variance of d) /
    (2 s + C2) in structure, where means and variances are weighted by the window. One pixel of the window, drawn with
    these weights, estimates the variance about the mean. Both terms of each window get a random sign.
    """
    x = full.double()
    mean = _blur(x)
    variance = (_blur(x * x) - mean.square()).clamp_min(0)
    windows = mean[0].numel()
    luminance = random_signs(mean, generator) / (windows * (2 * mean.square() + C1)).sqrt()
    structure = random_signs(mean, generator) / (windows * (2 * variance + C2)).sqrt()
    with torch.enable_grad():
        change = torch.zeros_like(x, requires_grad=True)
        blurred = _blur(change)
        linear = luminance * blurred + structure * (_one_pixel(change, mean, generator) - blurred)
        (weights,) = torch.autograd.grad(linear.sum(), change)
    return weights.float()


def _one_pixel(x: torch.Tensor, windows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw a pixel of each window with the window's weights: (P, C, H, W) to the shape of `windows`."""
    rows, columns = windows.shape[-2:]
    down, right = (
        torch.multinomial(_window(), windows.numel(), replacement=True, generator=generator).view(windows.shape)
        for _ in range(2)
    )
    top, left = (torch.arange(size, dtype=torch.int64, device="cpu") for size in (rows, columns))
    place = (top[:, None] + down) * x.shape[-1] + left + right
    return x.flatten(2).gather(2, place.flatten(2).to(x.device)).view(windows.shape)
