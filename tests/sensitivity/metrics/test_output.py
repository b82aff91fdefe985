"""Metrics of sounds, videos and sets: numbers in closed form, guards, and bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from bitplan.sensitivity.metrics import METRICS, perceptual
from bitplan.sensitivity.metrics.frechet import frechet
from bitplan.sensitivity.metrics.squares import loss_of as perceptual__loss_of
from bitplan.sensitivity.table import MeasurementError
from tests.perceptual import Judge, slow_lpips

torch.set_num_threads(1)
RATE = 8000


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def spectral(full: torch.Tensor, variant: torch.Tensor) -> torch.Tensor:
    return METRICS["spectral"].function(full, variant)


def test_spectral_of_a_louder_sound_is_the_square_of_the_log_ratio() -> None:
    full = 0.1 * noise(2, 1, 2 * RATE)
    assert spectral(full, 2 * full).tolist() == pytest.approx([math.log(2) ** 2] * 2, rel=0.01)


def test_spectral_of_little_noise_grows_with_its_power() -> None:
    full, added = 0.1 * noise(1, 1, 2 * RATE), 0.1 * noise(1, 1, 2 * RATE, seed=1)
    small, large = (float(spectral(full, full + share * added)) for share in (1e-3, 2e-3))
    assert large / small == pytest.approx(4, rel=0.1)


def test_silence_around_a_sound_does_not_hide_what_changed_in_it() -> None:
    sound = 0.1 * noise(1, 1, 4 * RATE)
    changed = sound + 0.02 * noise(1, 1, 4 * RATE, seed=1)
    alone = float(spectral(sound, changed))
    around = [torch.nn.functional.pad(x, (20 * RATE, 20 * RATE)) for x in (sound, changed)]
    assert float(spectral(*around)) == pytest.approx(alone, rel=0.1)


def test_near_silent_frames_do_not_blow_up() -> None:
    """Noise 75 dB below the sound, or below -100 dB of full scale, where there was nothing: no difference."""
    sound = torch.nn.functional.pad(0.1 * noise(1, 1, RATE), (0, RATE))
    quiet = torch.zeros_like(sound)
    quiet[..., RATE:] = noise(1, 1, RATE, seed=1)
    assert float(spectral(sound, sound + 1.8e-5 * quiet)) < 1e-4
    assert float(spectral(0 * sound, 1e-6 * quiet)) < 1e-3


def test_noise_in_silence_shows() -> None:
    sound = torch.nn.functional.pad(0.1 * noise(1, 1, RATE), (0, RATE))
    hiss = torch.zeros_like(sound)
    hiss[..., RATE:] = 0.1 * noise(1, 1, RATE, seed=1)
    assert float(spectral(sound, sound + hiss)) > 1
    assert float(spectral(0 * sound, hiss)) > 1
    assert float(spectral(sound, 0 * sound)) > 1


def test_a_silent_sound_is_compared_with_silence() -> None:
    silence = torch.zeros(1, 2, RATE)
    assert float(spectral(silence, silence)) == 0
    probe = METRICS["spectral"].probe(silence, generator())
    assert bool(torch.isfinite(probe).all())


def test_spectral_refuses_what_is_no_sound() -> None:
    with pytest.raises(MeasurementError, match=r"got \(1, 1, 100\)"):
        spectral(torch.zeros(1, 1, 100), torch.zeros(1, 1, 100))
    with pytest.raises(MeasurementError, match="samples, channels"):
        spectral(torch.zeros(1, 1000), torch.zeros(1, 1000))


def test_pixcorr_is_that_of_numpy() -> None:
    a, b = noise(3, 2, 5, 5), noise(3, 2, 5, 5, seed=1)
    expected = [1 - np.corrcoef(x.flatten(), y.flatten())[0, 1] for x, y in zip(a, b, strict=True)]
    assert METRICS["pixcorr"].function(a, b).tolist() == pytest.approx(expected)
    assert METRICS["pixcorr"].function(a, 3 * a + 0.5).tolist() == pytest.approx([0] * 3, abs=1e-12)


def test_pixcorr_of_flat_images() -> None:
    flat = torch.full((1, 3, 4, 4), 0.1)
    assert METRICS["pixcorr"].function(noise(1, 3, 4, 4), flat).item() == pytest.approx(1)
    with pytest.raises(MeasurementError, match="1 of 1 full-precision outputs are flat"):
        METRICS["pixcorr"].function(flat, flat)


def test_flicker_is_about_changes_in_time_alone() -> None:
    video = torch.rand(2, 4, 3, 5, 5, generator=generator(), dtype=torch.float64)
    assert METRICS["flicker"].function(video, video + 0.1).tolist() == pytest.approx([0, 0], abs=1e-15)
    every_other = 0.1 * torch.tensor([0.0, 1, 0, 1]).view(1, 4, 1, 1, 1)
    assert METRICS["flicker"].function(video, video + every_other).tolist() == pytest.approx([0.01] * 2)
    with pytest.raises(MeasurementError, match="got 1"):
        METRICS["flicker"].function(video[:, :1], video[:, :1])


def slow_frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Dowson and Landau 1982, eq. 4, with roots of matrices."""
    one, two = np.cov(a.T, bias=True), np.cov(b.T, bias=True)
    root = sqrtm(one @ two)
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(one + two - 2 * np.real(root)))


def test_frechet_equals_the_one_with_roots_of_matrices() -> None:
    a, b = noise(40, 5), 0.7 * noise(40, 5, seed=1) + 0.2
    shares = frechet(a, b)
    assert float(shares.mean()) == pytest.approx(slow_frechet(a.numpy(), b.numpy()), rel=1e-9)
    assert float(shares.min()) >= 0


def test_frechet_of_few_samples_of_many_dimensions() -> None:
    """The covariances are singular. It stays within twice the mean drift, and a rotation of samples is no distance."""
    a = torch.nn.functional.normalize(noise(6, 64), dim=-1)
    b = torch.nn.functional.normalize(a + 0.05 * noise(6, 64, seed=1), dim=-1)
    drift = float(METRICS["embed_drift"].function(a, b).mean())
    assert 0 < float(frechet(a, b).mean()) <= 2 * drift
    assert float(frechet(a, a.flip(0)).mean()) == pytest.approx(0, abs=1e-12)
    assert float(frechet(a, a).abs().max()) < 1e-12


def test_frechet_is_biased_upwards_by_few_samples() -> None:
    """Of the same change of 64 dimensions: from 16 samples nearly all of the drift, from 4096 next to none."""
    a = noise(4096, 64)
    b = a + 0.1 * noise(4096, 64, seed=1)
    few, many = (float(frechet(a[:count], b[:count]).mean()) for count in (16, 512))
    drift = float((a - b).square().sum(1).mean())
    assert few > 0.5 * drift > 5 * many


def test_lpips_is_eq_1_of_the_paper() -> None:
    torch.manual_seed(0)
    judge = Judge()
    a = torch.rand(3, 3, 16, 16)
    b = (a + 0.1 * torch.randn(a.shape)).clamp(0, 1)
    with torch.no_grad():
        found = perceptual__loss_of(perceptual.residuals_of(lambda: perceptual.network_of(judge)))(a, b)
        assert found.tolist() == pytest.approx(slow_lpips(judge, a, b).tolist(), rel=1e-5)


def test_lpips_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perceptual.importlib.util, "find_spec", lambda _: None)
    assert METRICS["lpips"].missing() == "lpips and torchvision not installed; pip install lpips torchvision"
    perceptual.package_network.cache_clear()
    with pytest.raises(MeasurementError, match="pip install lpips torchvision"):
        METRICS["lpips"].function(torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64))


def test_lpips_without_its_weights_says_where_they_belong(monkeypatch: pytest.MonkeyPatch) -> None:
    class Package:
        @staticmethod
        def LPIPS(**_: object) -> None:  # noqa: N802
            raise OSError("no route to\nhost")

    monkeypatch.setattr(perceptual, "missing", lambda: None)
    monkeypatch.setitem(__import__("sys").modules, "lpips", Package)
    perceptual.package_network.cache_clear()
    with pytest.raises(
        MeasurementError, match="weights are not available .OSError: no route to host.; put AlexNet's into"
    ):
        METRICS["lpips"].function(torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64))
