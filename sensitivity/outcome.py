"""What one run of the model gives, and what the metrics read of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass

import torch

from sensitivity.metrics.learned import Encoder, similarity
from sensitivity.table import MeasurementError

READINGS = {  # reading -> the field of Outcome that it comes from
    "denoised": "denoised",
    "images": "images",
    "embeds": "images",
    "similarity": "images",
}
_ROUNDING = 1e-3  # how far pixels may leave 0..1


@dataclass(frozen=True, eq=False)
class Outcome:
    """One run on fixed inputs. What no chosen metric reads may be left None.

    denoised: (S, ...) outputs of the denoiser on S cached inputs; groups: the timestep of each, owners: the index of
    its prompt (both of S numbers, or empty: all alike, all different).
    images: (P, 3, H, W) final images in 0..1, one a prompt.
    """

    denoised: torch.Tensor | None = None
    images: torch.Tensor | None = None
    groups: tuple[int, ...] = ()
    owners: tuple[int, ...] = ()


def check_reference(outcome: Outcome) -> None:
    """Raises MeasurementError when the full-precision run is unfit to compare with."""
    for name, tensor in (("denoised", outcome.denoised), ("images", outcome.images)):
        bad = 0 if tensor is None else int((~torch.isfinite(tensor)).sum())
        if tensor is not None and bad:
            raise MeasurementError(
                f"{bad} of {tensor.numel()} full-precision numbers ({name}) are not finite; "
                "check the pipeline's weights and dtype before profiling"
            )
    if outcome.images is not None and outcome.images.numel():
        low, high = (float(x) for x in outcome.images.detach().aminmax())
        if low < -_ROUNDING or high > 1 + _ROUNDING:
            raise MeasurementError(f"the full-precision images span {low:.3g}..{high:.3g}; hand in pixels in 0..1")


def clean(outcome: Outcome) -> tuple[Outcome, bool]:
    """The outcome with 0 for every number that is not finite and pixels clipped to 0..1, and whether all were finite.

    A broken variant so gets the loss of a denoiser that says nothing and of black pixels, instead of none at all.
    """
    tensors = {name: getattr(outcome, name) for name in ("denoised", "images")}
    present = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    finite = all(bool(torch.isfinite(tensor).all()) for tensor in present.values())
    if not finite:
        present = {name: torch.nan_to_num(tensor, 0.0, 0.0, 0.0) for name, tensor in present.items()}
    if "images" in present:
        present["images"] = present["images"].clamp(0, 1)
    return dataclasses.replace(outcome, **present), finite


def read(
    outcome: Outcome, reads: Collection[str], encoder: Encoder | None = None, texts: torch.Tensor | None = None
) -> dict[str, torch.Tensor]:
    """The readings named in `reads`, samples first; the images are embedded once.

    texts: (P, D) unit embeddings of the prompts, for `similarity`. Raises MeasurementError for what is not there.
    """
    readings: dict[str, torch.Tensor] = {}
    for name in reads:
        tensor = getattr(outcome, READINGS[name])
        if tensor is None:
            raise MeasurementError(f"the run returned no {READINGS[name]}, which the reading {name!r} needs")
        readings[name] = tensor
    if {"embeds", "similarity"} & readings.keys():
        embeds = _embed(outcome.images, encoder)
        if "embeds" in readings:
            readings["embeds"] = embeds
        if "similarity" in readings:
            readings["similarity"] = similarity(embeds, _matching(texts, len(embeds)))
    return readings


def _embed(images: torch.Tensor | None, encoder: Encoder | None) -> torch.Tensor:
    if encoder is None or images is None:
        raise MeasurementError("alignment metrics need an encoder of images and texts; hand one in or leave them out")
    return encoder.image(images)


def _matching(texts: torch.Tensor | None, images: int) -> torch.Tensor:
    prompts = 0 if texts is None else len(texts)
    if texts is None or prompts != images:
        raise MeasurementError(f"{images} images have {prompts} prompts; similarity needs one prompt an image")
    return texts
