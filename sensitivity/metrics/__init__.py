"""The metrics, in the order in which tables show them. To add one: its function in a file here and a line below."""

from __future__ import annotations

from bitplan.sensitivity.metrics.base import (
    OUTPUTS,  # noqa: F401
    Metric,  # noqa: F401
)
from bitplan.sensitivity.metrics.frechet import frechet  # noqa: F401
from bitplan.sensitivity.metrics.image import (
    dssim,  # noqa: F401
    dssim_probe,  # noqa: F401
)
from bitplan.sensitivity.metrics.learned import (
    Encoder,  # noqa: F401
    clip_drop,  # noqa: F401
    clip_encoder,  # noqa: F401
    clip_gradient,  # noqa: F401
    drift_probe,  # noqa: F401
    embed_drift,  # noqa: F401
)
from bitplan.sensitivity.metrics.perceptual import (
    lpips,  # noqa: F401
    lpips_probe,  # noqa: F401
    missing,  # noqa: F401
)
from bitplan.sensitivity.metrics.signal import (
    change_residuals,  # noqa: F401
    nsr,  # noqa: F401
    nsr_probe,  # noqa: F401
    pattern_residuals,  # noqa: F401
    pixcorr,  # noqa: F401
)
from bitplan.sensitivity.metrics.spectrum import spectral_residuals  # noqa: F401
from bitplan.sensitivity.metrics.squares import (
    loss_of,  # noqa: F401
    probe_of,  # noqa: F401
)
from bitplan.sensitivity.names import nearest
from bitplan.sensitivity.table import MeasurementError  # noqa: F401

__all__ = ["METRICS", "OUTPUTS", "TEXT_TO_IMAGE", "Encoder", "Metric", "clip_encoder", "default_metrics",
           "metric_named"]  # fmt: skip


_SEEN, _HEARD = ("images", "video"), ("audio",)


_TABLE = (
    Metric("nsr", "quality", "denoised", "noise over signal power of the denoiser's output", nsr, probe=nsr_probe,
           default=OUTPUTS),
    Metric("dssim", "quality", "images", "1 - SSIM of the final image", dssim, symmetric=True, probe=dssim_probe,
           outputs=_SEEN, default=_SEEN),
    Metric("clip_drop", "alignment", "similarity", "drop in CLIP similarity to the prompt", clip_drop, signed=True,
           probe=clip_gradient, outputs=_SEEN, default=_SEEN, texts=True),
    Metric("embed_drift", "alignment", "embeds", "1 - cosine of the image embeddings", embed_drift, symmetric=True,
           probe=drift_probe, outputs=_SEEN, default=_SEEN),
    Metric("output_nsr", "quality", "output", "noise over signal power of the final output", nsr, probe=nsr_probe,
           default=("audio", "array")),
    Metric("spectral", "quality", "output", "squared distance of log spectra, in nepers squared",
           loss_of(spectral_residuals), probe=probe_of(spectral_residuals), outputs=_HEARD, default=_HEARD),
    Metric("lpips", "quality", "output", "LPIPS distance of the final image (AlexNet, version 0.1)", lpips,
           symmetric=True, probe=lpips_probe, outputs=_SEEN, missing=missing),
    Metric("pixcorr", "quality", "output", "1 - correlation of all pixels or numbers of a sample", pixcorr,
           symmetric=True, probe=probe_of(pattern_residuals), outputs=("images", "video", "array")),
    Metric("flicker", "quality", "output", "mean square of what the changes from frame to frame differ by",
           loss_of(change_residuals), symmetric=True, probe=probe_of(change_residuals), outputs=("video",)),
    Metric("frechet", "quality", "embeds", "Frechet distance of the image embeddings of the whole set", frechet,
           outputs=_SEEN, additive=False),
)  # fmt: skip


METRICS = {metric.name: metric for metric in _TABLE}


def default_metrics(output: str, texts: bool, encoder: bool) -> tuple[Metric, ...]:
    """What is measured unasked, in the order of the table.

    output: the kind, of `OUTPUTS`; texts: whether conditions are texts; encoder: whether images can be embedded.
    Raises MeasurementError for an output of no known kind.
    """
    if output not in OUTPUTS:
        raise MeasurementError(f"an output is of kind {', '.join(OUTPUTS)}, not {output!r}")
    return tuple(
        metric
        for metric in METRICS.values()
        if output in metric.default and (texts or not metric.texts) and (encoder or not metric.embeds)
    )


def metric_named(text: str) -> Metric:
    """The built-in metric of that name. Raises MeasurementError naming the nearest."""
    if text in METRICS:
        return METRICS[text]
    raise MeasurementError(f"no metric is named {text!r}{nearest(text, METRICS)} (metrics: {', '.join(METRICS)})")


TEXT_TO_IMAGE = {metric.name: metric for metric in default_metrics("images", texts=True, encoder=True)}
