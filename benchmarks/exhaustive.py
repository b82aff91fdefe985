"""Claim: exhaustive measurement that resumes at the first call of a layer gives the losses of whole runs in less time.

    python -m benchmarks.exhaustive [--sample 24] [--pairs 3] [--seed 0]

`scenes`, 8 prompts, 8 steps, 4 replayed denoiser calls, one thread; all times are CPU seconds. Each of a random sample
of (layer, scheme) is measured by whole runs and by resumed ones, in turn. Reports medians of the paired ratios (time
resumed / time whole) for the replay of the denoiser, for the images, and for a whole measurement with its metrics; the
time of recording; and the time per repeat of one denoiser call with a repeated batch, which shows whether several
schemes of a layer in one batch would be faster. Writes benchmarks/results/exhaustive.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_map
from tqdm import tqdm

from bitplan.planner.costs.candidates import Candidate, candidates, parse_schemes
from bitplan.planner.costs.parameters import fitted_of
from bitplan.planner.measurement.replay import Replay, build_replay, call_again
from bitplan.planner.measurement.resume import RecordedReplay, record_replay, run_from
from bitplan.planner.pipelines.conditions import built_in_prompts
from bitplan.planner.pipelines.encoder import load_encoder
from bitplan.planner.pipelines.sources import DEFAULTS, load_subject
from bitplan.planner.pipelines.traced import Traced, examine
from bitplan.planner.scenes import SCENES
from bitplan.planner.verbs.parameters import DEFAULT_SCHEMES
from bitplan.plans.layers.addresses import module_at
from bitplan.plans.layers.simulation import variant
from bitplan.plans.scheme import KEEP
from bitplan.sensitivity.calibration.ranges import ActivationRange, calibrate
from bitplan.sensitivity.runs.exhaustive import measure_layers
from bitplan.sensitivity.runs.outcome import Outcome

PROMPTS, TIMESTEPS, REPEATS = 8, 4, (1, 2, 4, 8)
Ranges = dict[str, ActivationRange]


def seconds(work: Callable[[], object]) -> float:
    """Returns CPU seconds of this process's thread, which other load on the machine affects less than wall time."""
    start = time.process_time()
    work()
    return time.process_time() - start


def pairs_of(works: dict[str, tuple[Callable[[], object], Callable[[], object]]], pairs: int) -> dict[str, list[float]]:
    """Returns name -> median seconds of the first, of the second, and the median of second / first."""
    results = {}
    for name, (first, second) in works.items():
        times = [(seconds(first), seconds(second)) for _ in range(pairs)]
        results[name] = [median(a for a, _ in times), median(b for _, b in times), median(b / a for a, b in times)]
    return results


def timed(start: RecordedReplay, layer: torch.nn.Module, pairs: int) -> dict[str, list[float]]:
    """Times a layer that is changed now; the time of the images is that of a whole run minus that of its replay."""
    replay = start.replay
    results = pairs_of({
        "replay": (lambda: call_again(replay.calls), lambda: run_from(start, layer, images=False)),
        "all": (replay.run, lambda: run_from(start, layer)),
    }, pairs)  # fmt: skip
    whole, resumed = (results["all"][i] - results["replay"][i] for i in (0, 1))
    return {
        "replay": results["replay"],
        "images": [whole, resumed, resumed / whole],
        "replay and images": results["all"],
    }


def offered(subject: Traced, ranges: Ranges) -> list[Candidate]:
    results = candidates(subject.graph, subject.modules, parse_schemes(DEFAULT_SCHEMES), ranges)
    return [candidate for candidate in results if candidate.scheme != KEEP]


def losses(
    subject: Traced, ranges: Ranges, some: list[Candidate], run: Callable[[str], Outcome], context: dict[str, Any]
) -> Iterator[tuple[float, list[dict[str, Any]]]]:
    """Yields seconds and measurements of each candidate, with all work that profiling does for it."""
    variants = {
        (c.layer, str(c.scheme)): partial(variant, subject.parts, c.layer, c.scheme,
                                          fitted_of(subject.graph, c.layer, c.scheme, ranges[c.layer], {}), {})
        for c in some
    }  # fmt: skip
    begin = time.process_time()
    for rows in measure_layers(variants, run, **context):
        yield time.process_time() - begin, [asdict(row) for row in rows]
        begin = time.process_time()


def repeated(replay: Replay, times: int) -> float:
    """Returns seconds per repeat of the first denoiser call with a batch that is repeated `times` times."""
    call, rows = replay.calls[0], len(replay.calls[0].args[0])

    def grow(x: Any) -> Any:
        longer = isinstance(x, torch.Tensor) and x.dim() > 0 and len(x) == rows
        return x.repeat(times, *[1] * (x.dim() - 1)) if longer else x

    args, kwargs = tree_map(grow, call.args), tree_map(grow, dict(call.kwargs))
    with torch.no_grad():
        return seconds(lambda: call.module(*args, **kwargs)) / times


def batching(replay: Replay, turns: int) -> dict[str, float]:
    """Returns for each number of repeats the median ratio of the time per repeat to that of the plain batch."""
    results = [{times: repeated(replay, times) for times in REPEATS} for _ in range(turns + 1)][1:]
    return {str(times): median(one[times] / one[1] for one in results) for times in REPEATS}


def bench(args: argparse.Namespace) -> dict[str, Any]:
    prompts, encoder = built_in_prompts(True, PROMPTS), load_encoder(SCENES)
    subject = examine(load_subject(SCENES, DEFAULTS[SCENES]), prompts)
    denoisers = [module_at(subject.parts, address) for address in subject.denoisers]
    replay = build_replay(subject.subject, denoisers, prompts, DEFAULTS[SCENES].seed, TIMESTEPS)
    ranges = calibrate(subject.modules, replay.generate)
    everything = offered(subject, ranges)
    picked = np.random.default_rng(args.seed).choice(len(everything), args.sample, replace=False)
    some = [everything[i] for i in sorted(picked)]
    recordings: list[RecordedReplay] = []
    recording = seconds(lambda: recordings.append(record_replay(subject.subject.modules.values(), replay)))
    [start] = recordings
    context = {"reference": replay.reference, "encoder": encoder, "prompts": prompts}
    whole = losses(subject, ranges, some, lambda _: replay.run(), context)
    resumed = losses(subject, ranges, some, lambda layer: run_from(start, subject.modules[layer]), context)
    rows = []
    for candidate in tqdm(some):
        (plain, expected), (fast, got) = next(whole), next(resumed)
        fitted = fitted_of(subject.graph, candidate.layer, candidate.scheme, ranges[candidate.layer], {})
        with variant(subject.parts, candidate.layer, candidate.scheme, fitted) as module:
            times = timed(start, module, args.pairs)
        rows.append({"layer": candidate.layer, "scheme": str(candidate.scheme), **times,
                     "measurement": [plain, fast, fast / plain], "losses": {e["metric"]: [e["mean"], g["mean"]]
                     for e, g in zip(expected, got, strict=True)}})  # fmt: skip
    return {
        **summary(rows, recording),
        "candidates": len(everything),
        "batch": batching(replay, args.pairs),
        "rows": rows,
    }


def summary(rows: list[dict[str, Any]], recording: float) -> dict[str, Any]:
    worst = max(abs(a - b) / max(abs(a), 1e-12) for row in rows for a, b in row["losses"].values())
    ratios = {
        name: {"median of ratios": median(row[name][2] for row in rows),
               "ratio of sums": sum(row[name][1] for row in rows) / sum(row[name][0] for row in rows),
               "whole s": mean(row[name][0] for row in rows), "resumed s": mean(row[name][1] for row in rows)}
        for name in ("replay", "images", "replay and images", "measurement")
    }  # fmt: skip
    return {"ratios": ratios, "recording s": recording, "largest relative difference of a loss": worst}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=24)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "exhaustive.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    about = {"machine": platform.processor() or platform.machine(), "python": platform.python_version(), "threads": 1,
             "seed": args.seed, "sample": args.sample, "pairs": args.pairs, "prompts": PROMPTS, "timesteps": TIMESTEPS,
             "steps": DEFAULTS[SCENES].steps,
             "versions": {package: version(package) for package in ("torch", "diffusers", "transformers")}}  # fmt: skip
    results = {"about": about, **bench(args)}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps({name: value for name, value in results.items() if name != "rows"}, indent=1))


if __name__ == "__main__":
    main()
