"""Chooses the metrics that compare a subject's outputs: built-in ones and the user's own."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bitplan.planner.errors import UserError
from bitplan.planner.pipelines.encoder import load_encoder
from bitplan.planner.pipelines.references import is_reference, load_reference, typed, user_function
from bitplan.planner.pipelines.subject import Subject
from bitplan.planner.profiles.rules import RESERVED
from bitplan.sensitivity.metrics import METRICS, OUTPUTS, Metric, default_metrics, metric_named
from bitplan.sensitivity.metrics.curvature import probe_for
from bitplan.sensitivity.metrics.learned import Encoder
from bitplan.sensitivity.metrics.trial import check_metric
from bitplan.sensitivity.runs.outcome import READINGS
from bitplan.sensitivity.shortage import is_shortage
from bitplan.sensitivity.table import FAMILIES, OWN, MeasurementError

_NAME = re.compile(r"[A-Za-z_][\w.-]*")  # as `--cap NAME=VALUE` and `--objective NAME=1,...` parse it


def metrics_of(names: Sequence[str]) -> tuple[Metric, ...]:
    """The metrics of these names and references, each once, in their order.

    A reference names a `Metric`, or a function (full, variant) -> (N,) losses of the outputs, which becomes a metric of
    the family `own` under the function's name. Runs the module's code. Raises UserError for an object that is not a
    metric, a duplicate name, and a built-in metric whose package is not installed.
    """
    metrics: dict[str, Metric] = {}
    for name in names:
        metric = own_metric(name) if is_reference(name) else _built_in(name)
        if metrics.setdefault(metric.name, metric) != metric:
            raise UserError(f"two metrics are named {metric.name}; rename one of them")
    return tuple(metrics.values())


def as_metric(one: str | Metric) -> Metric:
    """Returns the checked metric of a name, a reference or a metric. Raises UserError."""
    return _checked(one, one.name) if isinstance(one, Metric) else metrics_of([one])[0]


def own_metric(reference: str) -> Metric:
    """Loads the reference as a metric. Raises UserError."""
    target = load_reference(reference)
    if isinstance(target, Metric):
        return _checked(target, reference)
    if not callable(target) or isinstance(target, type):
        raise UserError(f"{reference} is of type {type(target).__name__}, not a metric; name a function "
                        "(full, variant) -> losses, or a Metric")  # fmt: skip
    name = getattr(target, "__name__", type(target).__name__)
    says = (getattr(target, "__doc__", None) or "").strip().partition("\n")[0] or f"of the user's own: {reference}"
    return _checked(Metric(name, OWN, "output", says, _Plain(user_function(target))), reference)


@dataclass(frozen=True)
class _Plain:
    """Wraps the user's function and converts its losses to float64."""

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
        raise UserError(f"{reference} is named {metric.name}, which is a built-in metric; rename it")
    if metric.name in RESERVED:
        raise UserError(f"{reference} is named {metric.name}, which has another meaning for `solve`; rename it")
    if not _NAME.fullmatch(metric.name):
        raise UserError(f"{reference} is named {metric.name!r}; a name has letters, digits, '_', '-' and '.' only")
    choices = (("family", (*FAMILIES, OWN)), ("reads", tuple(READINGS)))
    for field, values in choices:
        if getattr(metric, field) not in values:
            raise UserError(f"{reference}: its {field} is {getattr(metric, field)!r}; use one of {', '.join(values)}")
    if odd := {*metric.outputs, *metric.default} - set(OUTPUTS):
        raise UserError(f"{reference}: {min(odd)!r} is not a kind of output; use some of {', '.join(OUTPUTS)}")
    return metric


@dataclass(frozen=True, eq=False)
class MetricSet:
    """The metrics that compare a subject's outputs.

    Attributes:
        metrics: in their order.
        encoder: CLIP of images and prompts; None where no metric needs it.
        texts: prompts of the conditions; empty where a condition has none.
        left_out: names of metrics that would need a CLIP.
        unfit: sentences on metrics that are left out for other reasons.
        unprobed: sentences on metrics without a probe.
    """

    metrics: tuple[Metric, ...]
    encoder: Encoder | None
    texts: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    unfit: tuple[str, ...] = ()
    unprobed: tuple[str, ...] = ()


def texts_of(conditions: Sequence[Any]) -> tuple[str, ...]:
    """Returns the prompts of all conditions; empty if a condition has no prompt."""
    texts = [condition.get("prompt") if isinstance(condition, Mapping) else condition for condition in conditions]
    return tuple(text for text in texts if isinstance(text, str)) if all(isinstance(t, str) for t in texts) else ()


def choose_metrics(
    subject: Subject, kind: str, conditions: Sequence[Any], own: Sequence[str] = (), clip: str | None = None,
    sample: Tensor | None = None,
) -> MetricSet:  # fmt: skip
    """Returns the metrics of the subject's outputs.

    Without `clip`, text conditions or a metric that needs CLIP, the alignment metrics of these outputs are left out
    and no model is downloaded. A default metric that cannot read the sample, such as a picture smaller than its window,
    is left out, too. Raises UserError, also for such a metric that was asked for.

    Args:
        subject: the subject.
        kind: the kind of its outputs.
        conditions: the conditions that it runs on.
        own: more metrics, by name or reference.
        clip: see `load_encoder`.
        sample: outputs in full precision.
    """
    texts = texts_of(conditions)
    defaults = _defaults(subject, kind, bool(texts), bool(texts) or clip is not None)
    metrics = _fitting(subject, kind, bool(texts), (*defaults, *metrics_of(own)))
    names = [metric.name for metric in metrics]
    left_out = tuple(m.name for m in _defaults(subject, kind, bool(texts), True) if m.name not in names)
    asked = {*own} | ({*names} if subject.metrics is not None else set())
    metrics, unfit = (metrics, ()) if sample is None else _readable(metrics, sample, asked)
    encoder = load_encoder(subject.name, clip) if any(metric.embeds for metric in metrics) else None
    return MetricSet(metrics, encoder, texts, left_out, unfit)


def _readable(
    metrics: Sequence[Metric], sample: Tensor, asked: Collection[str]
) -> tuple[tuple[Metric, ...], tuple[str, ...]]:
    """Returns the metrics that can read the sample, and sentences on the others. Raises UserError if one was asked for.

    asked: names of metrics.
    """
    reasons = {metric.name: reason for metric in metrics if (reason := _unreadable(metric, sample))}
    if refused := [name for name in reasons if name in asked]:
        raise UserError(f"the metric {refused[0]} cannot be measured: {reasons[refused[0]]}; leave it out")
    unfit = tuple(f"{name} left out: {reason}" for name, reason in reasons.items())
    return tuple(metric for metric in metrics if metric.name not in reasons), unfit


def _unreadable(metric: Metric, sample: Tensor) -> str | None:
    """Why a built-in metric cannot read such outputs, or None."""
    if metric.reads not in ("output", "images") or METRICS.get(metric.name) != metric:
        return None
    try:
        with torch.no_grad():
            metric.function(sample.clone(), sample.clone())
    except MeasurementError as error:
        return str(error)
    except Exception as error:  # torch raises anything for pictures smaller than a kernel
        if is_shortage(error):
            raise
        return f"it fails on outputs of shape {tuple(sample.shape)}, {' '.join(str(error).split())[:120]}"
    return None


def _defaults(subject: Subject, kind: str, texts: bool, encoder: bool) -> tuple[Metric, ...]:
    """Returns the subject's own metrics, or the default ones for this kind of output."""
    own = subject.metrics
    return default_metrics(kind, texts, encoder) if own is None else tuple(as_metric(typed(metric)) for metric in own)


def _fitting(subject: Subject, kind: str, texts: bool, candidates: Sequence[Metric]) -> tuple[Metric, ...]:
    """Returns the metrics, each once. Raises UserError for a metric that does not fit the outputs."""
    metrics = {metric.name: metric for metric in candidates}
    for metric in metrics.values():
        if kind not in metric.outputs or (metric.texts and not texts):
            lacks = f"is for {' and '.join(metric.outputs)}" if kind not in metric.outputs else "needs prompts"
            raise UserError(f"the metric {metric.name} {lacks}; the output of {subject.name} is {kind}; leave it out")
    return tuple(metrics.values())


def single_layer_metrics(metric_set: MetricSet, outputs: Tensor) -> MetricSet:
    """Returns the metrics for measuring single layers: without those of the whole set, and with a probe where possible.

    outputs: in full precision; each metric of the output is tested on them. Raises UserError.
    """
    sets = [f"{m.name} left out: it is about the whole set of outputs, which `bitplan evaluate` measures"
            for m in metric_set.metrics if not m.additive]  # fmt: skip
    chosen = [_with_probe(metric, outputs) for metric in metric_set.metrics if metric.additive]
    unprobed = tuple(f"{metric.name} has no probe: {why}; measure it with --method exhaustive"
                     for metric, why in chosen if metric.probe is None)  # fmt: skip
    metrics = tuple(metric for metric, _ in chosen)
    return replace(metric_set, metrics=metrics, unfit=(*metric_set.unfit, *sets), unprobed=unprobed)


def _with_probe(metric: Metric, outputs: Tensor) -> tuple[Metric, str]:
    """Tests a metric of the output and returns it with a probe, and where that is from or why there is none."""
    if metric.reads != "output" or (metric.probe is not None and METRICS.get(metric.name) == metric):
        return metric, "it defines none"
    check_metric(metric, outputs)
    choice = probe_for(metric, outputs)
    return replace(metric, probe=choice.probe), choice.how
