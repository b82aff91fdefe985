"""The metrics, in the order in which tables show them. To add one: its functions in a file here and a line below.

Imports no torch: the functions of a metric are imported when they are first called.
"""

from __future__ import annotations

from bitplan.sensitivity.metrics.base import OUTPUTS, Lazy, Metric, MetricTable
from bitplan.sensitivity.names import nearest
from bitplan.sensitivity.table import MeasurementError

__all__ = ["METRICS", "OUTPUTS", "TEXT_TO_IMAGE", "Metric", "default_metrics", "metric_named"]


_PICTURES, _SOUND = ("images", "video"), ("audio",)


def _at(place: str) -> Lazy:
    return Lazy(f"bitplan.sensitivity.metrics.{place}")


METRICS = MetricTable()
for _metric in (
    Metric("nsr", "quality", "denoised", "noise over signal power of the denoiser's output", _at("signal:nsr"),
           probe=_at("signal:nsr_probe"), default=OUTPUTS),
    Metric("dssim", "quality", "images", "1 - SSIM of the final image", _at("image:dssim"), symmetric=True,
           probe=_at("image:dssim_probe"), outputs=_PICTURES, default=_PICTURES),
    Metric("clip_drop", "alignment", "similarity", "drop in CLIP similarity to the prompt", _at("learned:clip_drop"),
           signed=True, probe=_at("learned:clip_gradient"), outputs=_PICTURES, default=_PICTURES, texts=True),
    Metric("embed_drift", "alignment", "embeds", "1 - cosine of the image embeddings", _at("learned:embed_drift"),
           symmetric=True, probe=_at("learned:drift_probe"), outputs=_PICTURES, default=_PICTURES),
    Metric("output_nsr", "quality", "output", "noise over signal power of the final output", _at("signal:nsr"),
           probe=_at("signal:nsr_probe"), default=("audio", "array")),
    Metric("spectral", "quality", "output", "squared distance of log spectra, in nepers squared",
           _at("spectrum:spectral"), probe=_at("spectrum:spectral_probe"), outputs=_SOUND, default=_SOUND),
    Metric("lpips", "quality", "output", "LPIPS distance of the final image (AlexNet, version 0.1)",
           _at("perceptual:lpips"), symmetric=True, probe=_at("perceptual:lpips_probe"), outputs=_PICTURES,
           missing=_at("perceptual:missing")),
    Metric("pixcorr", "quality", "output", "1 - correlation of all pixels or numbers of a sample",
           _at("signal:pixcorr"), symmetric=True, probe=_at("signal:pixcorr_probe"),
           outputs=("images", "video", "array")),
    Metric("flicker", "quality", "output", "mean squared error of the differences between frames",
           _at("signal:flicker"), symmetric=True, probe=_at("signal:flicker_probe"), outputs=("video",)),
    Metric("frechet", "quality", "embeds", "Frechet distance of the image embeddings of the whole set",
           _at("frechet:frechet"), outputs=_PICTURES, additive=False),
):  # fmt: skip
    METRICS.register(_metric)


def default_metrics(output: str, texts: bool, encoder: bool) -> tuple[Metric, ...]:
    """Return the metrics that are measured by default, in the order of the table.

    Args:
        output: the kind of output, one of `OUTPUTS`.
        texts: whether conditions are texts.
        encoder: whether images can be embedded.

    Raises:
        MeasurementError: an unknown kind of output.
    """
    if output not in OUTPUTS:
        raise MeasurementError(f"an output is of kind {', '.join(OUTPUTS)}, not {output!r}")
    return tuple(
        metric
        for metric in METRICS.values()
        if output in metric.default and (texts or not metric.texts) and (encoder or not metric.embeds)
    )


def metric_named(name: str) -> Metric:
    """Return the metric of that name. Raises MeasurementError, which proposes the nearest name."""
    if name in METRICS:
        return METRICS[name]
    raise MeasurementError(f"no metric is named {name!r}{nearest(name, METRICS)} (metrics: {', '.join(METRICS)})")


TEXT_TO_IMAGE = {metric.name: metric for metric in default_metrics("images", texts=True, encoder=True)}
