"""How optimistic the predicted time of the fastest plan is when timings are noisy, and what `steadied` changes.

The layers of `scenes` are timed twice. Measured: each layer takes its fastest scheme by the first table, as measured
or steadied, and the second table judges the plan. Simulated: the second table counts as true, and noise is added to
each timing of a distinct shape and scheme: its measured standard error times a factor, or a relative error. A ratio of
actual to predicted time of 1 is unbiased. Writes benchmarks/results/timing_noise.json.

    python -m benchmarks.timing_noise
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path

import numpy as np
import torch
from benchmarks.profile_time import pipeline_of, settings_of

from bitplan.planner.costs.candidates import Candidate, candidates, parse_schemes
from bitplan.planner.costs.table import cost_candidates
from bitplan.planner.costs.timings import Pair, shapes_of, shrunk
from bitplan.planner.pipelines.subject import run_subject, subject_of
from bitplan.planner.pipelines.traced import Traced, examine
from bitplan.planner.scenes import SCENES
from bitplan.sensitivity.calibration.ranges import calibrate

FACTORS, RELATIVE = (1.0, 3.0, 10.0), (0.05, 0.1, 0.2, 0.3, 0.5)
REPEATS, SEED = 20, 0
OUT = Path(__file__).parent / "results" / "timing_noise.json"
Times = Mapping[Pair, float]
Shapes = Mapping[str, Hashable]


def main() -> None:
    """Time the layers twice, judge and simulate, and write the result."""
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    traced, offered = _offered()
    (first, errors), (second, again) = timed(traced, offered), timed(traced, offered)
    shapes = shapes_of(traced.graph)
    rows = {f"{factor:g} x the measured errors": simulate(second, {p: factor * e for p, e in again.items()}, shapes)
            for factor in FACTORS}  # fmt: skip
    rows |= {
        f"{share:.0%}": simulate(second, {p: share * ms for p, ms in second.items()}, shapes) for share in RELATIVE
    }
    relative = float(np.median([errors[pair] / ms for pair, ms in first.items() if ms]))
    measured = {"as measured": judged(second, first), "steadied": judged(second, shrunk(first, errors, shapes))}
    result = {"load": load, "median_relative_error": relative, "repeats": REPEATS, "seed": SEED,
              "measured": measured, "simulated": rows}  # fmt: skip
    OUT.write_text(json.dumps(result, indent=1) + "\n")


def _offered() -> tuple[Traced, list[Candidate]]:
    settings = settings_of(SCENES)
    subject = subject_of(pipeline_of(SCENES), settings.generation, SCENES)
    traced = examine(subject, settings.prompts)
    ranges = calibrate(traced.modules, lambda: run_subject(subject, settings.prompts[:1], settings.generation.seed))
    return traced, candidates(traced.graph, traced.modules, parse_schemes(settings.schemes), dict(ranges))


def timed(traced: Traced, offered: list[Candidate]) -> tuple[dict[Pair, float], dict[Pair, float]]:
    """Return the milliseconds of each candidate, and their standard errors."""
    costs = list(cost_candidates(offered, traced.graph, traced.modules))
    return {(c.layer, c.scheme): c.ms or 0.0 for c in costs}, {(c.layer, c.scheme): c.error or 0.0 for c in costs}


def simulate(true: Times, errors: Times, shapes: Shapes) -> dict[str, dict[str, float]]:
    """Return the medians over repeats of `judged`, of noisy timings and of the same steadied."""
    random, found = np.random.default_rng(SEED), []
    for _ in range(REPEATS):
        drawn: dict[tuple[Hashable, str], float] = {}
        for layer, scheme in true:
            drawn.setdefault((shapes[layer], scheme), float(random.standard_normal()))
        raw = {
            pair: ms * float(np.exp(errors[pair] / ms * drawn[shapes[pair[0]], pair[1]])) for pair, ms in true.items()
        }
        known = {pair: errors[pair] / true[pair] * ms for pair, ms in raw.items()}
        found.append((judged(true, raw), judged(true, shrunk(raw, known, shapes))))
    middle: Callable[[int, str], float] = lambda side, name: float(np.median([one[side][name] for one in found]))  # noqa: E731
    return {label: {name: middle(side, name) for name in found[0][0]} for side, label in enumerate(("raw", "steadied"))}


def judged(true: Times, believed: Times) -> dict[str, float]:
    """Judge the plan that is fastest by the believed timings."""
    fastest: dict[str, Pair] = {}
    least: dict[str, float] = {}
    for pair, ms in believed.items():
        if pair[0] not in fastest or ms < believed[fastest[pair[0]]]:
            fastest[pair[0]] = pair
        least[pair[0]] = min(least.get(pair[0], np.inf), true[pair])
    actual, predicted = (sum(times[pair] for pair in fastest.values()) for times in (true, believed))
    return {"actual_over_predicted": actual / predicted, "actual_over_least": actual / sum(least.values())}


if __name__ == "__main__":
    main()
