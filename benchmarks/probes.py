"""Claims about sensitivity by probes, on `scenes` with the default schemes, 8 prompts, 8 steps: agreement with
exhaustive measurement, and what each simplification of the method costs.

    python -m benchmarks.probes EXHAUSTIVE.profile [--threads 1]

Default schemes, 8 prompts, 8 steps. EXHAUSTIVE.profile: made by `bitplan profile scenes --method exhaustive` (about an
hour), finished or not; its measurements are compared. Rows: the method as implemented; more and fewer probes; half of
the steps differentiated; the scheduler's transfer alone, without the denoiser's Jacobian; and the diagonal Fisher
score, sum of (g.dy)^2 by element, from the same passes. --cache stores the estimates of each. Writes
benchmarks/results/probes.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.about import about, write_result
from scipy.stats import spearmanr

from bitplan.planner.finetunes.check import settings_of
from bitplan.planner.measurement.chains import VISITS, chain_of
from bitplan.planner.measurement.jobs import Job
from bitplan.planner.measurement.methods.probes import changes_by_layer, draw_probes
from bitplan.planner.measurement.run import setup_of
from bitplan.planner.measurement.worker import Worker, worker_of
from bitplan.planner.pipelines.sources import load_subject
from bitplan.planner.pipelines.traced import examine
from bitplan.planner.profiles.profile import Pair, Profile, open_profile
from bitplan.sensitivity.calibration.ranges import ActivationRange
from bitplan.sensitivity.metrics import TEXT_TO_IMAGE
from bitplan.sensitivity.probes.estimate import join_responses, probe

Losses = dict[tuple[str, str, str], float]
ROUND = 4
TOP = 0.1


def worker_of_profile(store: Profile) -> tuple[Worker, list[Pair]]:
    """Sets up a worker with the profile's settings; also returns its (layer, scheme) pairs."""
    settings = replace(settings_of(store), probes=4)
    generation = settings.generation
    traced = examine(load_subject(settings.pipeline, generation), settings.prompts, generation.seed)
    ranges = {layer: ActivationRange(**limits) for layer, limits in store.ranges().items()}
    pairs = sorted({(cost.layer, cost.scheme) for cost in store.costs() if cost.scheme != "keep"})
    return worker_of(setup_of(traced, settings, ranges), traced.subject), pairs


def with_probes(worker: Worker, count: int) -> Worker:
    """Returns the worker with `count` probes of each metric of the image."""
    return replace(worker, setup=replace(worker.setup, settings=replace(worker.setup.settings, probes=count)))


def fisher(g_rkn: torch.Tensor, dy_rns: torch.Tensor) -> torch.Tensor:
    """Returns the sum over elements of (g.dy)^2."""
    return torch.bmm(g_rkn.square(), dy_rns.square())


def estimate(
    worker: Worker, pairs: Sequence[Pair], *, visits: int = VISITS, follow: bool = True,
    product: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = torch.bmm,
) -> Losses:  # fmt: skip
    """Estimates the losses by one variant of the method."""
    samples: dict[tuple[str, str, str], list[np.ndarray]] = {}
    prompts = worker.setup.settings.prompts
    job = Job("probes", tuple(pairs))
    layers = {layer: worker.module(layer) for layer in job.layers}
    for first in range(0, len(prompts), ROUND):
        some = prompts[first : first + ROUND]
        with chain_of(worker, some, first, visits) as chain:
            texts = worker.metric_set.encoder.text(some)
            probes = [draw_probes(worker, chain, metric, first, texts) for metric in worker.metric_set.metrics]
            if not follow:  # gradients on images stay what the scheduler alone makes of them
                chain = replace(chain, steps=[detached(step) for step in chain.steps])
            by_step = dict(probe(chain, layers, changes_by_layer(worker, job), probes, product=product))
            results = join_responses(chain, by_step, probes)
        for pair, by_metric in results.items():
            for name, sums in by_metric.items():
                exact = TEXT_TO_IMAGE[name].signed or product is fisher
                samples.setdefault((*pair, name), []).append((sums if exact else sums.square()).mean(0).numpy())
    return {key: float(np.concatenate(values).mean()) for key, values in samples.items()}


def detached(step: Any) -> Any:
    """Returns the step with detached inputs."""
    cut = lambda value: (  # noqa: E731
        value.detach() if isinstance(value, torch.Tensor)
        else {k: cut(v) for k, v in value.items()} if isinstance(value, Mapping)
        else type(value)(cut(v) for v in value) if isinstance(value, (tuple, list)) else value
    )  # fmt: skip
    return replace(step, args=cut(step.args), kwargs=cut(dict(step.kwargs)))


def cached(folder: Path | None, name: str, work: Callable[[], Losses]) -> tuple[Losses, float]:
    """Returns the result and CPU seconds of the work, from the cache where it exists."""
    path = None if folder is None else folder / f"{name}.json"
    if path is not None and path.is_file():
        stored = json.loads(path.read_text())
        return {tuple(key): value for key, value in stored["losses"]}, stored["seconds"]
    start = time.process_time()
    results = work()
    seconds = time.process_time() - start
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"losses": list(results.items()), "seconds": seconds}))
    return results, seconds


def agreement(results: Losses, truth: Losses) -> dict[str, Any]:
    """Returns for each metric: Spearman's rank correlation, overall and the smallest of a scheme; the share of the
    most sensitive tenth that the estimates find; the median of estimate over truth.
    """
    rows = {}
    for name in TEXT_TO_IMAGE:
        keys = [key for key in truth if key[2] == name and key in results]
        a, b = (np.array([losses[key] for key in keys]) for losses in (results, truth))
        count = max(1, round(TOP * len(keys)))
        both = set(np.argsort(-a)[:count]) & set(np.argsort(-b)[:count])
        schemes = {key[1] for key in keys}
        least = min(float(spearmanr(*(x[[k[1] == s for k in keys]] for x in (a, b)))[0]) for s in schemes)
        rows[name] = {
            "spearman": float(spearmanr(a, b)[0]), "least_within_a_scheme": least, "pairs": len(keys),
            "top_tenth_found": len(both) / count, "median_ratio": float(np.median(a / b)),
        }  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exhaustive", type=Path)
    parser.add_argument("--cache", type=Path, help="a folder")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "probes.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with open_profile(args.exhaustive) as store:
        truth = {(m.layer, m.scheme, m.metric): m.mean for m in store.measurements() if m.source == "exhaustive"}
        worker, pairs = worker_of_profile(store)
    steps = worker.setup.settings.generation.steps
    variants: dict[str, Callable[[], Losses]] = {
        "as shipped: 4 probes, all steps": lambda: estimate(worker, pairs),
        "8 probes": lambda: estimate(with_probes(worker, 8), pairs),
        "2 probes": lambda: estimate(with_probes(worker, 2), pairs),
        "half of the steps": lambda: estimate(worker, pairs, visits=steps // 2),
        "scheduler's transfer alone": lambda: estimate(worker, pairs, follow=False),
        "diagonal Fisher": lambda: estimate(worker, pairs, product=fisher),
    }
    rows = {}
    for name, work in variants.items():
        results, seconds = cached(args.cache, name, work)
        rows[name] = {"cpu_seconds": seconds, "metrics": agreement(results, truth)}
        print(name, json.dumps(rows[name]), flush=True)
        described = about(0, measured=len(truth) // len(TEXT_TO_IMAGE), of=len(pairs))
        write_result(args.out, {"variants": rows}, described)


if __name__ == "__main__":
    main()
