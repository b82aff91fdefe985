"""Exhaustive measurement: changes one layer at a time, everything else in full precision."""

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
    """Yield the measurements of each variant, one a metric, in the order of `variants` and `metrics`.

    run: returns the outcome on the same inputs each time. The other arguments are those of `measure_layers`.
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
    """Like `measure`, but `run` gets the name of the changed layer, so that it need not repeat earlier computations.

    variants: (layer, scheme text) -> makes a context in which the layer uses the scheme. No context is active while
    this generator yields, so the caller may stop and later pass the pending variants. encoder, prompts: for metrics
    that read embeddings; one prompt an image. Numbers of a variant's output that are not finite count as 0.
    Raises MeasurementError if the reference is not finite, shapes differ, or a metric's reading is missing.
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
            samples = {metric.name: losses(metric, full[metric.reads], changed[metric.reads]) for metric in metrics}
        yield [_measurement(layer, scheme, metric, samples[metric.name], reference, finite) for metric in metrics]


def _check_shapes(reference: Outcome, outcome: Outcome, what: str) -> None:
    for name, tensors in reference.tensors.items():
        full, changed = ([tuple(x.shape) for x in side] for side in (tensors, outcome.tensors.get(name, tensors)))
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
