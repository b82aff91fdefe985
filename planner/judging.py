"""By which metrics a subject is judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from planner.errors import UserError
from planner.own_metrics import as_metric, check_metric, metrics_of
from planner.pipelines import load_encoder
from planner.subject import Subject
from sensitivity.metrics import METRICS, Encoder, Metric, default_metrics
from sensitivity.metrics.curvature import probe_for


@dataclass(frozen=True, eq=False)
class Judge:
    """metrics: in their order; encoder: of images and prompts, None where no metric needs one; texts: of the
    conditions, empty where they have none; left_out: names of metrics that a CLIP would be needed for."""

    metrics: tuple[Metric, ...]
    encoder: Encoder | None
    texts: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def texts_of(conditions: Sequence[Any]) -> tuple[str, ...]:
    """The prompts of all conditions, or none where one has none."""
    found = [one.get("prompt") if isinstance(one, Mapping) else one for one in conditions]
    return tuple(one for one in found if isinstance(one, str)) if all(isinstance(one, str) for one in found) else ()


def judge_of(
    subject: Subject, kind: str, conditions: Sequence[Any], own: Sequence[str] = (), clip: str | None = None
) -> Judge:
    """What judges the outputs of the subject. own: more metrics, by name or reference; clip: see `load_encoder`.

    Nobody asked for a CLIP where neither one is named nor a metric that needs one, and no condition is a text: the
    metrics that there would be for these outputs are then left out, rather than one be fetched. Raises UserError.
    """
    texts = texts_of(conditions)
    unasked = _unasked(subject, kind, bool(texts), bool(texts) or clip is not None)
    metrics = _fitting(subject, kind, bool(texts), (*unasked, *metrics_of(own)))
    there = [metric.name for metric in metrics]
    left_out = tuple(m.name for m in _unasked(subject, kind, bool(texts), True) if m.name not in there)
    needed = any(metric.embeds for metric in metrics)
    return Judge(metrics, load_encoder(subject.name, clip) if needed else None, texts, left_out)


def _unasked(subject: Subject, kind: str, texts: bool, encoder: bool) -> tuple[Metric, ...]:
    """As the subject says, or what there is for outputs of this kind."""
    said = subject.metrics
    return default_metrics(kind, texts, encoder) if said is None else tuple(as_metric(one) for one in said)


def _fitting(subject: Subject, kind: str, texts: bool, found: Sequence[Metric]) -> tuple[Metric, ...]:
    """Each once. Raises UserError for one that does not fit."""
    metrics = {metric.name: metric for metric in found}
    for metric in metrics.values():
        if kind not in metric.outputs or (metric.texts and not texts):
            lacks = f"is for {' and '.join(metric.outputs)}" if kind not in metric.outputs else "needs prompts"
            raise UserError(f"the metric {metric.name} {lacks}; {subject.name} puts out {kind}; leave it out")
    return tuple(metrics.values())


def probed_by(judge: Judge, outputs: Tensor) -> Judge:
    """The judge as it measures single layers: without metrics of the whole set, each metric of the output tried on
    `outputs`, in full precision, and with a probe where there can be one. Raises UserError."""
    return replace(judge, metrics=tuple(_tried(metric, outputs) for metric in judge.metrics if metric.additive))


def _tried(metric: Metric, outputs: Tensor) -> Metric:
    if metric.reads != "output" or METRICS.get(metric.name) == metric:
        return metric
    check_metric(metric, outputs)
    return replace(metric, probe=probe_for(metric, outputs).probe)
