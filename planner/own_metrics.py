"""Which metrics are measured: built-in ones by name, and those of the user's own as `package.module:name`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from planner.errors import UserError
from planner.formulate import COSTS
from planner.references import is_reference, load_reference
from sensitivity.metrics import METRICS, OUTPUTS, Metric, metric_named
from sensitivity.outcome import READINGS
from sensitivity.table import FAMILIES, OWN, MeasurementError

SAME = 1e-6  # a loss of equal outputs that is rounding
AMOUNT = 0.05  # of the sample's spread: the change that a metric is tried on
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
    return _checked(Metric(name, OWN, "output", says, _Plain(found)), reference)


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


def check_metric(metric: Metric, sample: torch.Tensor) -> None:
    """Try a metric on some of what it will read, in full precision, before anything slow.

    sample: (N, ...), two samples or more where the metric is to be seen to keep them apart. Raises UserError, in one
    line, for a loss of the wrong shape or type, one that is not finite, not 0 for equal outputs, negative though not
    signed, another one when asked again, or one that depends on the other samples though additive.
    """
    changed = _change(sample)
    same = _losses(metric, sample, sample)
    if float(same.abs().max()) > SAME:
        raise UserError(f"metric {metric.name} is {float(same.abs().max()):.3g} for equal outputs; it must be 0 there")
    losses = _losses(metric, sample, changed)
    if not metric.signed and float(losses.min()) < -SAME:
        raise UserError(f"metric {metric.name} is {float(losses.min()):.3g} for a changed output; a loss is 0 or more, "
                        "or comes as a Metric with signed=True")  # fmt: skip
    if not _close(losses, _losses(metric, sample, changed)):
        raise UserError(f"metric {metric.name} gives other losses when asked again; it must not draw random numbers")
    if metric.additive and len(sample) > 1 and not _close(losses[:1], _losses(metric, sample[:1], changed[:1])):
        raise UserError(f"metric {metric.name} gives a sample another loss when it comes alone; compare samples one by "
                        "one, or give a Metric with additive=False for evaluations only")  # fmt: skip


def _change(sample: torch.Tensor) -> torch.Tensor:
    """The sample with a little noise, within its own range: images stay images."""
    low, high = sample.aminmax()
    drawn = torch.randn(sample.shape, generator=torch.Generator().manual_seed(0)).to(sample)
    spread = (sample.float().std() if sample.numel() > 1 else sample.float().abs().max()).to(sample)
    changed = sample + AMOUNT * spread * drawn
    return changed.clamp(low, high) if low < high else changed


def _losses(metric: Metric, full: torch.Tensor, variant: torch.Tensor) -> torch.Tensor:
    """The checked losses; the metric gets copies, which it may write into."""
    try:
        with torch.no_grad():
            losses: Any = metric.function(full.clone(), variant.clone())
    except Exception as error:  # whatever the user's code throws is bad input to us
        reason = " ".join(str(error).split())[:200]
        shape = tuple(full.shape)
        raise UserError(f"metric {metric.name} fails on outputs of shape {shape}: {type(error).__name__}: {reason}; "
                        "correct it, or leave it out") from error  # fmt: skip
    if not isinstance(losses, torch.Tensor) or losses.shape != (len(full),):
        got = tuple(losses.shape) if isinstance(losses, torch.Tensor) else type(losses).__name__
        raise UserError(f"metric {metric.name} gives {got} for {len(full)} outputs; it must give a tensor of shape "
                        f"({len(full)},), one loss a sample")  # fmt: skip
    if losses.is_complex() or not bool(torch.isfinite(losses).all()):
        bad = "complex numbers" if losses.is_complex() else f"{int((~losses.isfinite()).sum())} losses not finite"
        raise UserError(f"metric {metric.name} gives {bad}; losses are finite numbers")
    return losses.double()


def _close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-3, atol=SAME)
