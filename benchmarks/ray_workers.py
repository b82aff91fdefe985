"""Claim: losses measured by Ray workers, one of them killed on the way, are those measured in one process.

    python -m benchmarks.ray_workers [--part 2/12] [--schemes w8a8,w2ma8] [--count 4] [--workers 2] [--threads 1]

Measures one share of the layers of `scenes` locally, and again by the workers of a Ray cluster started here, of which
one is killed with SIGKILL when a third of the losses are there. Writes and prints JSON: the largest relative difference
of all losses and of their standard errors.
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
from pathlib import Path
from typing import Any

import torch

import planner
from planner.engines.ray import RETRIES
from planner.store import content_digest, open_profile
from sensitivity.table import Measurement
from tests.planner.killing import measured, workers_below

TARGET = 1e-6


def kill_a_worker(path: Path, rows: int, killed: list[dict[str, int]]) -> None:
    """When so many rows are there; says what was done in `killed`."""
    while (done := measured(path)) < rows:
        time.sleep(0.05)
    pid = workers_below(os.getpid())[0]
    os.kill(pid, signal.SIGKILL)
    killed.append({"rows_before": done})


def profile(out: Path, options: dict[str, Any]) -> tuple[dict[tuple[str, str, str], Measurement], str, float]:
    """The measurements, their digest, and the seconds that it took, loading included."""
    start = time.perf_counter()
    planner.profile("scenes", out, **options)
    seconds = time.perf_counter() - start
    with open_profile(out) as store:
        found = {(m.layer, m.scheme, m.metric): m for m in store.measurements()}
        return found, content_digest(store), seconds


def relative(a: float, b: float) -> float:
    """|a - b| as a share of the larger; losses of nothing at all are equal."""
    return abs(a - b) / max(abs(a), abs(b)) if a != b else 0.0


def compare(folder: Path, options: dict[str, Any], workers: int) -> dict[str, Any]:
    alone, digest, seconds = profile(folder / "alone.profile", options)
    out, killed = folder / "ray.profile", []  # type: ignore[var-annotated]
    rows = len({key[:2] for key in alone})
    killer = threading.Thread(target=kill_a_worker, args=(out, rows // 3, killed), daemon=True)
    killer.start()
    crowd, digest_ray, seconds_ray = profile(out, options | {"engine": "ray", "workers": workers})
    if alone.keys() != crowd.keys():
        raise SystemExit("the two profiles hold other measurements")
    worst = max(alone, key=lambda key: relative(alone[key].mean, crowd[key].mean))
    difference = relative(alone[worst].mean, crowd[worst].mean)
    return {
        "measurements": rows,
        "losses": len(alone),
        "killed": killed,
        "largest_relative_difference": difference,
        "worst": " ".join(worst),
        "largest_of_standard_errors": max(relative(alone[key].stderr, crowd[key].stderr) for key in alone),
        "target": TARGET,
        "met": difference <= TARGET and len(killed) == 1,
        "bit_for_bit": digest == digest_ray,
        "seconds_local": round(seconds, 1),
        "seconds_ray": round(seconds_ray, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", default="2/12")
    parser.add_argument("--schemes", default="w8a8,w2ma8")
    parser.add_argument("--count", type=int, default=4, help="of prompts")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of the local run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "ray_workers.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    options = {"schemes": tuple(args.schemes.split(",")), "part": args.part, "count": args.count, "seed": args.seed}
    with tempfile.TemporaryDirectory() as folder:
        report = compare(Path(folder), options, args.workers)
    asked = {name: value for name, value in vars(args).items() if name != "out"}
    machine = {"processor": platform.machine(), "cpus": os.cpu_count(), "torch": torch.__version__}
    report = {"pipeline": "scenes", **asked, "retries": RETRIES, "machine": machine, **report}
    args.out.parent.mkdir(exist_ok=True)
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    return not report["met"]


if __name__ == "__main__":
    sys.exit(main())
