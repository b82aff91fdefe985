"""The outcome of one run of the model, and the readings of it that metrics compare."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch

from bitplan.sensitivity.metrics.base import Metric
from bitplan.sensitivity.metrics.calls import losses_of
from bitplan.sensitivity.metrics.learned import Encoder, embed, similarity
from bitplan.sensitivity.table import MeasurementError

READINGS = {  # reading -> the field of Outcome that it is computed from
    "denoised": "denoised",
    "output": "outputs",
    "images": "outputs",
    "embeds": "outputs",
    "similarity": "outputs",
}


PICTURES = ("images", "video")  # kinds of output that are pixels in 0..1
_ROUNDING = 1e-3  # excess of pixels over 0..1 that is rounding
Readings = torch.Tensor | tuple[torch.Tensor, ...]


@dataclass(frozen=True, eq=False)
class Outcome:
    """The outcome of one run on fixed inputs. A field that no metric reads may be None.

    Attributes:
        denoised: (B, ...) the denoisers' outputs on recorded inputs, one tensor a call.
        outputs: (P, ...) final outputs, one a sample.
        groups: the call of each of the S rows of `denoised`, by its number in its run; empty if there is one call.
        owners: the sample of each of the S rows; empty if each row is a sample of its own.
        kind: the kind of `outputs`; `images` and `video` are pixels in 0..1.
    """

    denoised: tuple[torch.Tensor, ...] | None = None
    outputs: torch.Tensor | None = None
    groups: tuple[int, ...] = ()
    owners: tuple[int, ...] = ()
    kind: str = "images"

    @property
    def tensors(self) -> dict[str, tuple[torch.Tensor, ...]]:
        """The fields that are not None, by name."""
        parts = {"denoised": self.denoised, "outputs": None if self.outputs is None else (self.outputs,)}
        return {name: part for name, part in parts.items() if part is not None}


def losses(metric: Metric, full: Readings, variant: Readings) -> torch.Tensor:
    """The loss of each sample, call after call. Raises as `bitplan.sensitivity.metrics.calls.losses_of`."""
    if isinstance(full, torch.Tensor) or isinstance(variant, torch.Tensor):
        return losses_of(metric, full, variant)  # type: ignore[arg-type]
    return torch.cat([losses_of(metric, *both) for both in zip(full, variant, strict=True)])


def check_reference(outcome: Outcome) -> None:
    """Raises MeasurementError if the full-precision outcome is not finite or its pixels are out of range."""
    for name, tensors in outcome.tensors.items():
        bad = sum(int((~torch.isfinite(tensor)).sum()) for tensor in tensors)
        if bad:
            raise MeasurementError(
                f"{bad} of {sum(x.numel() for x in tensors)} full-precision numbers ({name}) are not finite; "
                "check the pipeline's weights and dtype before profiling"
            )
    if outcome.kind in PICTURES and outcome.outputs is not None and (span := out_of_range(outcome.outputs)):
        low, high = span
        raise MeasurementError(f"the full-precision {outcome.kind} span {low:.3g}..{high:.3g}; hand in pixels in 0..1")


def out_of_range(pixels: torch.Tensor) -> tuple[float, float] | None:
    """The smallest and the largest number of pixels that are not in 0..1; None if they are, or none is a number."""
    if not pixels.numel():
        return None
    low, high = (float(x) for x in pixels.detach().aminmax())
    return (low, high) if low < -_ROUNDING or high > 1 + _ROUNDING else None


def clean(outcome: Outcome) -> tuple[Outcome, bool]:
    """The outcome with 0 for numbers that are not finite and pixels clipped to 0..1, and whether all were finite.

    So a variant that fails gets the loss of an empty output instead of none.
    """
    present = outcome.tensors
    finite = all(bool(torch.isfinite(tensor).all()) for tensors in present.values() for tensor in tensors)
    if not finite:
        present = {
            name: tuple(torch.nan_to_num(x, 0.0, 0.0, 0.0) for x in tensors) for name, tensors in present.items()
        }
    outputs = present["outputs"][0] if "outputs" in present else None
    if outputs is not None and outcome.kind in PICTURES:
        outputs = outputs.clamp(0, 1)
    return dataclasses.replace(outcome, denoised=present.get("denoised"), outputs=outputs), finite


def read(
    outcome: Outcome, reads: Collection[str], encoder: Encoder | None = None, texts: torch.Tensor | None = None
) -> dict[str, Any]:
    """The readings of an outcome by name, (N, ...) each; `denoised` is a tuple with one tensor a call.

    Args:
        outcome: the outcome.
        reads: names of the readings.
        encoder: for `embeds` and `similarity`; images are embedded once.
        texts: (P, D) unit embeddings of the prompts, for `similarity`.

    Raises:
        MeasurementError: something that a reading needs is missing.
    """
    readings: dict[str, Any] = {}
    for name in reads:
        tensor = getattr(outcome, READINGS[name])
        if tensor is None:
            raise MeasurementError(f"the run returned no {READINGS[name]}, which the reading {name!r} needs")
        readings[name] = tensor
    if {"embeds", "similarity"} & readings.keys():
        embeds = _embed(outcome.outputs, encoder)
        if "embeds" in readings:
            readings["embeds"] = embeds
        if "similarity" in readings:
            readings["similarity"] = similarity(embeds, _matching(texts, len(embeds)))
    return readings


def _embed(images: torch.Tensor | None, encoder: Encoder | None) -> torch.Tensor:
    if encoder is None or images is None:
        raise MeasurementError("alignment metrics need an encoder of images and texts; hand one in or leave them out")
    return embed(encoder, images)


def _matching(texts: torch.Tensor | None, images: int) -> torch.Tensor:
    prompts = 0 if texts is None else len(texts)
    if texts is None or prompts != images:
        raise MeasurementError(f"{images} images have {prompts} prompts; similarity needs one prompt an image")
    return texts
