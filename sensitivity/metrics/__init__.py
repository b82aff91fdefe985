"""The metrics, in the order in which tables show them. To add one: its function in a file here and a line below."""

from __future__ import annotations

from sensitivity.metrics.base import Metric
from sensitivity.metrics.image import dssim, dssim_probe
from sensitivity.metrics.learned import Encoder, clip_drop, clip_encoder, clip_gradient, drift_probe, embed_drift
from sensitivity.metrics.signal import nsr, nsr_probe

__all__ = ["METRICS", "Encoder", "Metric", "clip_encoder"]

_TABLE = (
    Metric("nsr", "quality", "denoised", "noise over signal power of the denoiser's output", nsr, probe=nsr_probe),
    Metric("dssim", "quality", "images", "1 - SSIM of the final image", dssim, symmetric=True, probe=dssim_probe),
    Metric("clip_drop", "alignment", "similarity", "drop in CLIP similarity to the prompt", clip_drop, signed=True,
           probe=clip_gradient),
    Metric("embed_drift", "alignment", "embeds", "1 - cosine of the image embeddings", embed_drift, symmetric=True,
           probe=drift_probe),
)  # fmt: skip
METRICS = {metric.name: metric for metric in _TABLE}
