"""Claim: Ray workers, one of which is killed, measure the same losses as one process.

    python -m benchmarks.ray_workers [--part 2/24] [--schemes w8a8,w2ma8] [--workers 2] [--threads 1]

Measures one share of the layers of `scenes` locally, and again by the workers of a local Ray cluster, one of which is
killed with SIGKILL: exhaustively, killed after a third of the losses; and by probes with checks, killed in the second
round. Writes and prints JSON: for each method and metric the largest relative difference of all losses and of their
standard errors.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tests.planner.support.killing import measured, workers_below

import bitplan
from bitplan.planner.measurement.engines.ray import RETRIES
from bitplan.planner.measurement.rounds import ROUND
from bitplan.planner.profiles.profile import content_digest, open_profile
from bitplan.sensitivity.table import Measurement

TARGET = 1e-6
Key = tuple[str, str, str]  # layer, scheme, metric


def kill_a_worker(path: Path, rows: int, killed: list[dict[str, int]]) -> None:
    """Kills a worker when the number of rows is reached, and reports it in `killed`."""
    while (done := measured(path)) < rows or not (workers := workers_below(os.getpid())):
        time.sleep(0.05)
    os.kill(workers[0], signal.SIGKILL)
    killed.append({"rows_before": done})


def profile(out: Path, options: dict[str, Any]) -> tuple[dict[Key, Measurement], str, float]:
    """Returns the measurements, their digest, and the seconds with loading."""
    start = time.perf_counter()
    bitplan.profile("scenes", out, **options)
    seconds = time.perf_counter() - start
    with open_profile(out) as store:
        results = {(m.layer, m.scheme, m.metric): m for m in store.measurements()}
        return results, content_digest(store), seconds


def relative(a: float, b: float) -> float:
    """Returns |a - b| relative to the larger; two zero losses are equal."""
    return abs(a - b) / max(abs(a), abs(b)) if a != b else 0.0


def differences(alone: Mapping[Key, Measurement], crowd: Mapping[Key, Measurement]) -> dict[str, dict[str, Any]]:
    """Returns for each metric the largest relative difference of the losses, its place, and that of their standard
    errors.
    """
    results: dict[str, dict[str, Any]] = {}
    for metric in sorted({key[2] for key in alone}):
        mine = [key for key in alone if key[2] == metric]
        worst = max(mine, key=lambda key: relative(alone[key].mean, crowd[key].mean))
        results[metric] = {
            "losses": len(mine),
            "largest_relative_difference": relative(alone[worst].mean, crowd[worst].mean),
            "worst": " ".join(worst[:2]),
            "largest_of_standard_errors": max(relative(alone[key].stderr, crowd[key].stderr) for key in mine),
        }
    return results


def compare(folder: Path, options: dict[str, Any], workers: int) -> dict[str, Any]:
    alone, digest, seconds = profile(folder / f"{options['method']}.profile", options)
    out, killed = folder / f"{options['method']}-ray.profile", []  # type: ignore[var-annotated]
    rows = len({key[:2] for key in alone})
    killer = threading.Thread(target=kill_a_worker, args=(out, rows // 3, killed), daemon=True)
    killer.start()
    crowd, digest_ray, seconds_ray = profile(out, options | {"engine": "ray", "workers": workers})
    if alone.keys() != crowd.keys():
        raise SystemExit("the two profiles hold other measurements")
    metrics = differences(alone, crowd)
    difference = max(its["largest_relative_difference"] for its in metrics.values())
    return {
        "prompts": options["count"],
        "measurements": rows,
        "sources": dict(Counter(m.source for m in crowd.values())),
        "killed": killed,
        "metrics": metrics,
        "largest_relative_difference": difference,
        "met": difference <= TARGET and len(killed) == 1,
        "bit_for_bit": digest == digest_ray,
        "seconds_local": round(seconds, 1),
        "seconds_ray": round(seconds_ray, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", default="2/24")
    parser.add_argument("--schemes", default="w8a8,w2ma8")
    parser.add_argument("--count", type=int, default=4, help="of prompts; twice as many for probes: two rounds")
    parser.add_argument("--checks", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of the local run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "ray_workers.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    options = {"schemes": tuple(args.schemes.split(",")), "part": args.part, "seed": args.seed, "checks": args.checks}
    with tempfile.TemporaryDirectory() as folder:
        methods = {
            method: compare(Path(folder), {**options, "method": method, "count": count}, args.workers)
            for method, count in (("exhaustive", args.count), ("probes", max(2 * args.count, ROUND + 1)))
        }
    arguments = {name: value for name, value in vars(args).items() if name != "out"}
    machine = {"processor": platform.machine(), "cpus": os.cpu_count(), "torch": torch.__version__}
    met = all(results["met"] for results in methods.values())
    settings = {"pipeline": "scenes", **arguments, "retries": RETRIES, "machine": machine}
    report = settings | {"target": TARGET, "met": met, "methods": methods}
    args.out.parent.mkdir(exist_ok=True)
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    return not met


if __name__ == "__main__":
    sys.exit(main())
