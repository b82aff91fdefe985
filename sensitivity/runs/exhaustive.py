"""Exhaustive measurement: one (layer, scheme) changed at a time, everything else in full precision. The oracle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

import torch

from bitplan.sensitivity.metrics import TEXT_TO_IMAGE, Metric
from bitplan.sensitivity.metrics.learned import Encoder
from bitplan.sensitivity.runs.outcome import Outcome, check_reference, clean, losses, read
from bitplan.sensitivity.table import Measurement, MeasurementError, describe, summarise

Variants = Mapping[tuple[str, str], Callable[[], AbstractContextManager[object]]]


def measure(
    variants: Variants,
    run: Callable[[], Outcome],
    reference: Outcome,
    metrics: Sequence[Metric] = tuple(TEXT_TO_IMAGE.values()),
    encoder: Encoder | None = None,
    prompts: Sequence[str] = (),
) -> Iterator[list[Measurement]]:
    """Yields the measurements of each variant, one a metric, in the order of `variants` and `metrics`.

    run: gives the outcome on the same inputs each time, of the shapes of `reference`, its full-precision outcome.
    All else as in `measure_layers`.
    """
    return measure_layers(variants, lambda _: run(), reference, metrics, encoder, prompts)


def measure_layers(
    variants: Variants,
    run: Callable[[str], Outcome],
    reference: Outcome,
    metrics: Sequence[Metric] = tuple(TEXT_TO_IMAGE.values()),
    encoder: Encoder | None = None,
    prompts: Sequence[str] = (),
) -> Iterator[list[Measurement]]:
    """As `measure`, where `run` is told which layer is changed now, so that it need not compute what came before.

    variants: (layer, scheme text) -> makes a context in which that layer uses that scheme; it has been left again
    whenever this generator yields, so the caller may store the list, stop, and later pass only the pending ones.
    encoder, prompts: for metrics that read embeddings; prompts one an image.
    A variant whose output is not finite is measured with 0 in its place, and marked so. Raises MeasurementError when
    the reference is not finite, shapes differ, or something that a metric reads is missing.
    """
    check_reference(reference)
    reads = tuple(dict.fromkeys(metric.reads for metric in metrics))
    with torch.no_grad():
        texts = encoder.text(prompts) if encoder is not None and "similarity" in reads else None
        full = read(clean(reference)[0], reads, encoder, texts)
    for (layer, scheme), context in variants.items():
        with torch.no_grad():
            with context():
                outcome = run(layer)
            _check_shapes(reference, outcome, f"{layer} at {scheme}")
            outcome, finite = clean(outcome)
            changed = read(outcome, reads, encoder, texts)
            found = {metric.name: losses(metric, full[metric.reads], changed[metric.reads]) for metric in metrics}
        yield [_measurement(layer, scheme, metric, found[metric.name], reference, finite) for metric in metrics]


def _check_shapes(reference: Outcome, outcome: Outcome, what: str) -> None:
    for name, tensors in reference.tensors.items():
        full, changed = ([tuple(x.shape) for x in some] for some in (tensors, outcome.tensors.get(name, tensors)))
        if full != changed:
            raise MeasurementError(
                f"{what}: {name} have shape {_shown(changed)}, full precision has {_shown(full)}; "
                "run both on the same inputs"
            )


def _shown(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join(map(str, dict.fromkeys(shapes)))


def _measurement(
    layer: str, scheme: str, metric: Metric, losses: torch.Tensor, reference: Outcome, finite: bool
) -> Measurement:
    by_step = metric.reads == "denoised"
    strata, clusters = (reference.groups, reference.owners) if by_step else ((), ())
    mean, stderr, count = summarise(losses.tolist(), strata, clusters, describe(layer, scheme, metric.name))
    return Measurement(layer, scheme, metric.name, mean, stderr, count, finite)
