"""How optimistic the predicted time of the fastest plan is when timings are noisy, and what `steadied` changes.

The layers of `scenes` are timed twice. Measured: each layer takes its fastest scheme by the first table, as measured
or steadied, and the second table judges the plan. Simulated: the second table counts as true, and noise is added to
each timing of a distinct shape and scheme: its measured standard error times a factor, or a relative error. A ratio of
actual to predicted time of 1 is unbiased. Writes benchmarks/results/timing_noise.json.

    python -m benchmarks.timing_noise
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from benchmarks.about import about, write_result
from benchmarks.profile_time import pipeline_of, settings_of

from bitplan.planner.costs.candidates import Candidate, candidates, parse_schemes
from bitplan.planner.costs.table import cost_candidates
from bitplan.planner.pipelines.subject import run_subject, subject_of
from bitplan.planner.pipelines.traced import Traced, examine
from bitplan.planner.profiles.profile import Cost, Pair
from bitplan.planner.profiles.timings import steadied
from bitplan.planner.scenes import SCENES
from bitplan.sensitivity.calibration.ranges import calibrate

FACTORS, RELATIVE = (1.0, 3.0, 10.0), (0.05, 0.1, 0.2, 0.3, 0.5)
REPEATS, SEED = 20, 0
OUT = Path(__file__).parent / "results" / "timing_noise.json"
Times = Mapping[Pair, float]


def main() -> None:
    """Time the layers twice, judge and simulate, and write the result."""
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    traced, offered = _offered()
    first, second = (list(cost_candidates(offered, traced.graph, traced.modules)) for _ in range(2))
    true = times_of(second)
    rows = {f"{factor:g} x the measured errors": simulate([replace(c, error=factor * (c.error or 0.0)) for c in second])
            for factor in FACTORS}  # fmt: skip
    rows |= {f"{share:.0%}": simulate([replace(c, error=share * (c.ms or 0.0)) for c in second]) for share in RELATIVE}
    relative = float(np.median([c.error / c.ms for c in first if c.ms and c.error]))
    measured = {"as measured": judged(true, times_of(first)), "steadied": judged(true, times_of(steadied(first)))}
    result = {"load": load, "median_relative_error": relative, "repeats": REPEATS, "measured": measured,
              "simulated": rows}  # fmt: skip
    write_result(OUT, result, about(SEED))


def _offered() -> tuple[Traced, list[Candidate]]:
    settings = settings_of(SCENES)
    subject = subject_of(pipeline_of(SCENES), settings.generation, SCENES)
    traced = examine(subject, settings.prompts)
    ranges = calibrate(traced.modules, lambda: run_subject(subject, settings.prompts[:1], settings.generation.seed))
    return traced, candidates(traced.graph, traced.modules, parse_schemes(settings.schemes), dict(ranges))


def times_of(costs: Sequence[Cost]) -> Times:
    """Return the milliseconds of each candidate."""
    return {(cost.layer, cost.scheme): cost.ms or 0.0 for cost in costs}


def simulate(true: Sequence[Cost]) -> dict[str, dict[str, float]]:
    """Return the medians over repeats of `judged`, of noisy timings and of the same steadied. true: with errors."""
    random, found = np.random.default_rng(SEED), []
    for _ in range(REPEATS):
        drawn: dict[tuple[float | None, str], float] = {}  # layers of one shape have equal timings
        raw = []
        for cost in true:
            draw = drawn.setdefault((cost.ms, cost.scheme), float(random.standard_normal()))
            factor = float(np.exp((cost.error or 0.0) / (cost.ms or 1.0) * draw))
            raw.append(replace(cost, ms=(cost.ms or 0.0) * factor, error=(cost.error or 0.0) * factor))
        found.append([judged(times_of(true), times_of(costs)) for costs in (raw, steadied(raw))])
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
