"""Claim: a signed metric in the objective makes the solver pick candidates that are good only by chance.

    python -m benchmarks.signed_metrics PROFILE [PROFILE ...] [--threads 1]

The profiles are of `scenes` with the default schemes. For each, at 25, 20, 15 and 12 % of full bytes: the best plan by
quality and `embed_drift`, and the best by quality and the mean of `embed_drift` and `clip_drop`, each in units of its
mean loss; losses of both on held-out prompts with simulated kernels. Writes benchmarks/results/signed_metrics.json.
"""

from __future__ import annotations

import argparse
import json
import platform
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from benchmarks.probe_plans import best, measured, problem_of
from benchmarks.probes import worker_of_profile

from bitplan.planner.choice.evidence import read_evidence, scale_of
from bitplan.planner.measurement.replay import build_replay
from bitplan.planner.pipelines.subject import conditions_of
from bitplan.planner.profiles.profile import open_profile

SHARES, HELD_OUT = (0.25, 0.20, 0.15, 0.12), 32
SIGNED, PLAIN = "clip_drop", "embed_drift"


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Returns one row for each share with the losses of both plans."""
    rows = []
    with open_profile(path) as store:
        worker, _ = worker_of_profile(store)
        settings, evidence = worker.setup.settings, read_evidence(store)
        prompts = tuple(conditions_of(worker.subject, None, HELD_OUT, held_out=True))
        replay = build_replay(worker.subject, worker.denoisers, prompts, 1000, settings.timesteps)
        weights = {
            "without": {"quality": 1.0, PLAIN: 1 / scale_of(evidence, PLAIN)},
            "with": {"quality": 1.0} | {name: 0.5 / scale_of(evidence, name) for name in (PLAIN, SIGNED)},
        }
        for share in SHARES:
            problem = problem_of(evidence, share)
            plans = {name: best(store, evidence, replace(problem, objective=its)) for name, its in weights.items()}
            results = {name: measured(worker, replay, prompts, plan) for name, plan in plans.items()}
            rows.append({"profile": path.stem, "share": share, **results})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("profiles", type=Path, nargs="+")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "signed_metrics.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = [row for path in args.profiles for row in rows_of(path)]
    times = {name: [row["with"][name] / row["without"][name] for row in rows] for name in ("nsr", "dssim", PLAIN)}
    about = {"machine": platform.machine(), "threads": args.threads, "torch": torch.__version__, "held_out": HELD_OUT}
    summary = {name: {"median": median(some), "least": min(some), "most": max(some)} for name, some in times.items()}
    args.out.write_text(json.dumps({"with_over_without": summary, "rows": rows, "about": about}, indent=1) + "\n")
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
