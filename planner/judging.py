"""By which metrics a subject is judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from planner.pipelines import load_encoder
from planner.subject import Subject
from sensitivity.metrics import TEXT_TO_IMAGE, Encoder, Metric

READ_BY_ENCODER = ("embeds", "similarity")


@dataclass(frozen=True, eq=False)
class Judge:
    """metrics: in their order; encoder: of images and prompts, None where no metric needs one; texts: of the
    conditions, empty where they have none."""

    metrics: tuple[Metric, ...]
    encoder: Encoder | None
    texts: tuple[str, ...]


def texts_of(conditions: Sequence[Any]) -> tuple[str, ...]:
    """The prompts of all conditions, or none where one has none."""
    found = [one.get("prompt") if isinstance(one, Mapping) else one for one in conditions]
    return tuple(one for one in found if isinstance(one, str)) if all(isinstance(one, str) for one in found) else ()


def judge_of(
    subject: Subject, kind: str, conditions: Sequence[Any], own: Sequence[str] = (), clip: str | None = None
) -> Judge:
    """What judges the outputs of the subject. clip: see `load_encoder`. Raises UserError."""
    metrics = metrics_of(subject, kind, conditions, own)
    needed = any(metric.reads in READ_BY_ENCODER for metric in metrics)
    return Judge(metrics, load_encoder(subject.name, clip) if needed else None, texts_of(conditions))


def metrics_of(subject: Subject, kind: str, conditions: Sequence[Any], own: Sequence[str] = ()) -> tuple[Metric, ...]:
    """What a subject is judged by: as it says, or what there is for outputs of this kind; own: more, by name."""
    texts = bool(texts_of(conditions))
    told = [m for m in TEXT_TO_IMAGE.values() if kind == "images" or m.reads == "denoised"]
    return tuple(m for m in told if texts or m.reads != "similarity")
