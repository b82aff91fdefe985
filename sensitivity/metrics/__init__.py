"""The metrics, in the order in which tables show them. To add one: its function in a file here and a line below."""

from __future__ import annotations

from sensitivity.metrics.base import Metric
from sensitivity.metrics.image import dssim
from sensitivity.metrics.learned import Encoder, clip_drop, clip_encoder, embed_drift
from sensitivity.metrics.signal import nsr

__all__ = ["METRICS", "Encoder", "Metric", "clip_encoder"]

_TABLE = (
    Metric("nsr", "quality", "denoised", "noise over signal power of the denoiser's output", nsr),
    Metric("dssim", "quality", "images", "1 - SSIM of the final image", dssim, symmetric=True),
    Metric("clip_drop", "alignment", "similarity", "drop in CLIP similarity to the prompt", clip_drop, signed=True),
    Metric("embed_drift", "alignment", "embeds", "1 - cosine of the image embeddings", embed_drift, symmetric=True),
)
METRICS = {metric.name: metric for metric in _TABLE}
