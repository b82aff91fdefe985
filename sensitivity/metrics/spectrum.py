"""Log-spectral distance of sounds, which stays finite in silence."""

from __future__ import annotations

from functools import cache

import torch

from bitplan.sensitivity.metrics.squares import loss_of, probe_of
from bitplan.sensitivity.table import MeasurementError

WINDOWS = (128, 512, 2048)  # samples of a frame; frames overlap by three quarters
FLOOR = 1e-4  # relative to the mean power of the loud frames: 40 dB below it nothing is audible
SILENCE = 1e-10  # power of an amplitude of 1e-5: -100 dB of full scale, for sound in -1..1


def spectral_residuals(full: torch.Tensor, variant: torch.Tensor) -> list[torch.Tensor]:
    """Residuals whose sum of squares is the log-spectral distance: (P, C, T) twice to one float64 tensor a window.

    They are log |variant| - log |full| of each bin and frame, in nepers (as Gray and Markel 1976, eq. 4, at several
    resolutions as Yamamoto et al. 2020, section 2.3), weighted for the mean over the audible frames. In silence two
    rules apply. `FLOOR` times the full-precision power is added to both powers, so that logarithms of tiny powers are
    equal. Frames are weighted by how far either sound is above this floor, so that long silence in both does not hide
    the change of a short sound, while sound that the variant adds to silence counts.
    Raises MeasurementError for sound that is shorter than the shortest window.
    """
    if full.dim() != 3 or full.shape[-1] < WINDOWS[0]:
        raise MeasurementError(f"spectra need sound of shape (samples, channels, {WINDOWS[0]} or more), "
                               f"got {tuple(full.shape)}")  # fmt: skip
    windows = [size for size in WINDOWS if size <= full.shape[-1]]
    return [_residual(full.double(), variant.double(), size) / len(windows) ** 0.5 for size in windows]


def _residual(full: torch.Tensor, variant: torch.Tensor, size: int) -> torch.Tensor:
    """The residuals of one window, (P, C, bins, frames)."""
    before, after = _power(full, size), _power(variant, size)
    frames = before.mean(2, keepdim=True)  # (P, C, 1, frames)
    loud = frames.square().sum((1, 3), keepdim=True) / frames.sum((1, 3), keepdim=True).clamp_min(SILENCE)
    floor = FLOOR * loud + SILENCE
    audible = _audible(frames, after.detach().mean(2, keepdim=True), floor)  # no gradient: the log ratio is 0 there
    weights = audible / (audible.sum((1, 3), keepdim=True) * before.shape[2]).clamp_min(SILENCE)
    return ((after + floor) / (before + floor)).log() / 2 * weights.sqrt()


def _audible(before: torch.Tensor, after: torch.Tensor, floor: torch.Tensor) -> torch.Tensor:
    """How far the frames of either sound are above the floor: 0..1, near 0 for silence in both."""
    return 1 - (1 - before / (before + floor)) * (1 - after / (after + floor))


def _power(x: torch.Tensor, size: int) -> torch.Tensor:
    """Power spectra, (P, C, T) to (P, C, bins, frames), in which each bin of white noise has the noise's variance."""
    window = _window(size).to(x.device)
    spectrum = torch.stft(x.flatten(0, 1), size, size // 4, window=window, return_complex=True)
    power = (spectrum.real.square() + spectrum.imag.square()) / window.square().sum()
    return power.unflatten(0, x.shape[:2])


@cache
def _window(size: int) -> torch.Tensor:
    return torch.hann_window(size, dtype=torch.float64)


spectral, spectral_probe = loss_of(spectral_residuals), probe_of(spectral_residuals)
