"""Chooses the metrics that compare a subject's outputs: built-in ones and the user's own."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bitplan.planner.errors import UserError
from bitplan.planner.pipelines.encoder import load_encoder
from bitplan.planner.pipelines.references import is_reference, load_reference, user_function
from bitplan.planner.pipelines.subject import Subject
from bitplan.planner.units import COSTS
from bitplan.sensitivity.metrics import METRICS, OUTPUTS, Metric, default_metrics, metric_named
from bitplan.sensitivity.metrics.curvature import probe_for
from bitplan.sensitivity.metrics.learned import Encoder
from bitplan.sensitivity.metrics.trial import check_metric
from bitplan.sensitivity.runs.outcome import READINGS
from bitplan.sensitivity.table import FAMILIES, OWN, MeasurementError

_TAKEN = (*COSTS, *FAMILIES, OWN, "both", "lexicographic")  # words of objectives
_NAME = re.compile(r"[A-Za-z_][\w.-]*")  # what `--cap NAME=VALUE` and `--objective NAME=1,...` can say


def metrics_of(names: Sequence[str]) -> tuple[Metric, ...]:
    """The metrics of these names and references, each once, in their order.

    A reference names a `Metric`, or a function (full, variant) -> (N,) losses of the outputs, which becomes a metric of
    the family `own` under the function's name. Runs the module's code. Raises UserError for what is no metric, for a
    name that is taken, and for a built-in whose package is not installed.
    """
    found: dict[str, Metric] = {}
    for name in names:
        metric = own_metric(name) if is_reference(name) else _built_in(name)
        if found.setdefault(metric.name, metric) != metric:
            raise UserError(f"two metrics are named {metric.name}; rename one of them")
    return tuple(found.values())


def as_metric(one: str | Metric) -> Metric:
    """A name, a reference or a metric, as a metric that may be measured. Raises UserError."""
    return _checked(one, one.name) if isinstance(one, Metric) else metrics_of([one])[0]


def own_metric(reference: str) -> Metric:
    """What the reference names, as a metric. Raises UserError."""
    found = load_reference(reference)
    if isinstance(found, Metric):
        return _checked(found, reference)
    if not callable(found) or isinstance(found, type):
        raise UserError(f"{reference} is {type(found).__name__}, no metric; name a function (full, variant) -> losses, "
                        "or a Metric")  # fmt: skip
    name = getattr(found, "__name__", type(found).__name__)
    says = (getattr(found, "__doc__", None) or "").strip().partition("\n")[0] or f"of the user's own: {reference}"
    return _checked(Metric(name, OWN, "output", says, _Plain(user_function(found))), reference)


@dataclass(frozen=True)
class _Plain:
    """A function of the user's own, whose losses are taken as float64."""

    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

    def __call__(self, full: torch.Tensor, variant: torch.Tensor) -> torch.Tensor:
        losses = self.function(full, variant)
        return losses.double() if isinstance(losses, torch.Tensor) else losses


def _built_in(name: str) -> Metric:
    try:
        metric = metric_named(name)
    except MeasurementError as error:
        raise UserError(f"{error}; one of your own is written package.module:name") from None
    if reason := metric.missing():
        raise UserError(f"{name}: {reason}")
    return metric


def _checked(metric: Metric, reference: str) -> Metric:
    if metric.name in METRICS and METRICS[metric.name] != metric:
        raise UserError(f"{reference} is named {metric.name}, which is a metric of BitPlan's; rename it")
    if metric.name in _TAKEN:
        raise UserError(f"{reference} is named {metric.name}, which means something else to solve; rename it")
    if not _NAME.fullmatch(metric.name):
        raise UserError(f"{reference} is named {metric.name!r}; a name has letters, digits, '_', '-' and '.' only")
    choices = (("family", (*FAMILIES, OWN)), ("reads", tuple(READINGS)))
    for field, known in choices:
        if getattr(metric, field) not in known:
            raise UserError(f"{reference}: its {field} is {getattr(metric, field)!r}; take one of {', '.join(known)}")
    if odd := {*metric.outputs, *metric.default} - set(OUTPUTS):
        raise UserError(f"{reference}: {min(odd)!r} is no kind of output; take some of {', '.join(OUTPUTS)}")
    return metric


@dataclass(frozen=True, eq=False)
class MetricSet:
    """The metrics that compare a subject's outputs.

    Attributes:
        metrics: in their order.
        encoder: CLIP of images and prompts; None where no metric needs it.
        texts: prompts of the conditions; empty where a condition has none.
        left_out: names of metrics that would need a CLIP.
    """

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
) -> MetricSet:
    """Returns the metrics of the subject's outputs. own: more metrics, by name or reference; clip: see `load_encoder`.

    Without `clip`, text conditions or a metric that needs CLIP, the alignment metrics of these outputs are left out
    and no model is downloaded. Raises UserError.
    """
    texts = texts_of(conditions)
    unasked = _unasked(subject, kind, bool(texts), bool(texts) or clip is not None)
    metrics = _fitting(subject, kind, bool(texts), (*unasked, *metrics_of(own)))
    there = [metric.name for metric in metrics]
    left_out = tuple(m.name for m in _unasked(subject, kind, bool(texts), True) if m.name not in there)
    needed = any(metric.embeds for metric in metrics)
    return MetricSet(metrics, load_encoder(subject.name, clip) if needed else None, texts, left_out)


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


def probed_by(metric_set: MetricSet, outputs: Tensor) -> MetricSet:
    """Returns the metrics for measuring single layers: without those of the whole set, and with a probe where possible.

    outputs: in full precision, on which each metric of the output is tried. Raises UserError.
    """
    additive = (metric for metric in metric_set.metrics if metric.additive)
    return replace(metric_set, metrics=tuple(_tried(metric, outputs) for metric in additive))


def _tried(metric: Metric, outputs: Tensor) -> Metric:
    if metric.reads != "output" or (metric.probe is not None and METRICS.get(metric.name) == metric):
        return metric
    check_metric(metric, outputs)
    return replace(metric, probe=probe_for(metric, outputs).probe)
