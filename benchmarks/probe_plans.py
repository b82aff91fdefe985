"""Compares predictions for whole plans on `scenes`, by probes and by exhaustive measurement, with measured losses.

    python -m benchmarks.probe_plans PROBES.profile EXHAUSTIVE.profile [--fisher CACHE.json] [--threads 1]

Both profiles have the default schemes, prompts and steps. (a) 60 random plans, and 30 good ones, which are best for
losses multiplied by random factors at 18 % of full bytes, measured on the profiles' prompts: Spearman correlations of
the plain sum of losses and of the joint estimate. (b) The best plans at 30, 25, 20 and 15 % by either profile's losses
and by Fisher scores (a file of `benchmarks.probes --cache`), measured on held-out prompts. Kernels are simulated.
Writes benchmarks/results/probe_plans.json.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.probes import worker_of_profile
from scipy.stats import spearmanr
from tqdm import tqdm

from bitplan.planner.choice.evidence import Evidence, read_evidence, whole
from bitplan.planner.choice.joint import predict_plan
from bitplan.planner.choice.problem import formulate
from bitplan.planner.choice.record import Provenance, plan_of
from bitplan.planner.measurement.replay import Replay, build_replay
from bitplan.planner.measurement.worker import Worker
from bitplan.planner.pipelines.subject import conditions_of
from bitplan.planner.profiles.profile import Profile, open_profile
from bitplan.plans.layers.swap import swap, undo
from bitplan.plans.plan import Plan
from bitplan.plans.scheme import parse_scheme
from bitplan.sensitivity.metrics import TEXT_TO_IMAGE
from bitplan.sensitivity.runs.exhaustive import measure
from bitplan.sensitivity.table import LossTable, Measurement
from bitplan.solvers.effort import Effort
from bitplan.solvers.problem import Budget, Problem
from bitplan.solvers.solution import choice_of
from bitplan.solvers.solve import solve

SHARES, NEAR = (0.30, 0.25, 0.20, 0.15), 0.18  # of full precision's bytes
RANDOM, GOOD, HELD_OUT = 60, 30, 48
BOTH = {"quality": 1.0, "alignment": 1.0}


def problem_of(evidence: Evidence, share: float) -> Problem:
    """Makes a problem with equal weights of quality and alignment within a share of full precision's bytes."""
    return formulate(evidence, BOTH, [Budget("bytes", int(share * whole(evidence)["bytes"]))], real=False)


def best(store: Profile, evidence: Evidence, problem: Problem) -> Plan:
    results = solve(problem, Effort(gap=1e-4))
    assert results.choice is not None
    return plan_of(store, evidence, (problem, results.choice), Provenance(results))


def random_plans(store: Profile, evidence: Evidence, random: np.random.Generator) -> list[Plan]:
    """Draws random plans: each solver group draws from a random set of schemes, so plans range from all 8 bits to all
    2.
    """
    problem = formulate(evidence, BOTH, (), real=False)
    schemes = sorted({s for offered in evidence.offered.values() for s in offered if s != "keep"})
    plans = []
    for _ in range(RANDOM):
        some = set(random.choice(schemes, random.integers(1, 7), replace=False)) | {"keep"}
        odds = {scheme: random.exponential() for scheme in sorted(some)} | {"keep": 0.05}
        picks = []
        for number, offered in enumerate(problem.candidates):
            names = [name for name in offered if name in some]
            weights = np.array([odds[name] for name in names])
            name = names[random.choice(len(names), p=weights / weights.sum())]
            picks.append(int(problem.offsets[number]) + offered.index(name))
        plans.append(plan_of(store, evidence, (problem, choice_of(problem, tuple(picks))), Provenance(None)))
    return plans


def good_plans(store: Profile, evidence: Evidence, random: np.random.Generator) -> list[Plan]:
    """Returns different plans that are nearly optimal at one budget."""
    plans = []
    for _ in range(GOOD):
        moved = {
            key: replace(m, mean=m.mean * float(random.lognormal(0, 0.7)))
            for key, m in evidence.losses.measurements.items()
        }
        shaken = replace(evidence, losses=LossTable(moved))
        plans.append(best(store, shaken, problem_of(shaken, NEAR)))
    return plans


def measured(worker: Worker, replay: Replay, prompts: tuple[str, ...], plan: Plan) -> dict[str, float]:
    """Measures the plan's losses with simulated kernels."""
    schemes = {layer: parse_scheme(text) for layer, text in plan.schemes.items()}
    fitted = {layer: worker.setup.fitted(layer, scheme) for layer, scheme in schemes.items()}
    swapped, metrics = swap(worker.parts, schemes, fitted, real=False), worker.metric_set
    try:
        rows = next(
            measure(
                {("plan", "plan"): nullcontext}, replay.run, replay.reference, metrics.metrics, metrics.encoder, prompts
            )
        )
    finally:
        undo(swapped)
    return {row.metric: row.mean for row in rows}


def ranks(store: Profile, plans: list[Plan], truth: list[dict[str, float]]) -> dict[str, Any]:
    """Returns for each metric the Spearman correlation of sum and joint estimate with the measured loss, and the
    median of measured over estimate.
    """
    predictions = [predict_plan(plan, store) for plan in plans]
    rows = {}
    for name in TEXT_TO_IMAGE:
        real = np.array([losses[name] for losses in truth])
        ways = {
            "sum": np.array([p[name].added for p in predictions]),
            "joint": np.array([p[name].joint for p in predictions]),
        }
        rows[name] = {
            way: {"spearman": float(spearmanr(values, real)[0]), "median_ratio": float(np.median(real / values))}
            for way, values in ways.items()
        }
    return rows


def with_losses(evidence: Evidence, losses: Mapping[tuple[str, str, str], float]) -> Evidence:
    table = LossTable.of(Measurement(*key, value, 0.0, 1) for key, value in losses.items())
    return replace(evidence, losses=table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("probes", type=Path)
    parser.add_argument("exhaustive", type=Path)
    parser.add_argument("--fisher", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "probe_plans.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    random = np.random.default_rng(args.seed)
    with open_profile(args.probes) as store, open_profile(args.exhaustive) as oracle:
        worker, _ = worker_of_profile(store)
        prompts = worker.setup.settings.prompts
        by = {"probes": read_evidence(store), "exhaustive": read_evidence(oracle)}
        if args.fisher:
            scores = {tuple(key): value for key, value in json.loads(args.fisher.read_text())["losses"]}
            by["diagonal Fisher"] = with_losses(by["exhaustive"], scores)
        about = {"machine": platform.machine(), "threads": args.threads, "seed": args.seed, "torch": torch.__version__,
                 "prompts": len(prompts), "held_out": HELD_OUT}  # fmt: skip
        results: dict[str, Any] = {"about": about}

        def keep(name: str, value: Any) -> None:
            results[name] = value
            args.out.write_text(json.dumps(results, indent=1) + "\n")
            print(name, json.dumps(value), flush=True)

        keep("at one budget", chosen(worker, oracle, by))
        makers: dict[str, Callable[..., list[Plan]]] = {"random plans": random_plans, "good plans": good_plans}
        for name, make in makers.items():
            plans = make(store, by["probes"], random)
            truth = [measured(worker, worker.replay, prompts, plan) for plan in tqdm(plans, name)]
            keep(name, {"plans": len(plans), "metrics": ranks(store, plans, truth)})


def chosen(worker: Worker, oracle: Profile, by: Mapping[str, Evidence]) -> list[dict[str, Any]]:
    """Returns the best plans at each share by each evidence, and their losses on held-out prompts."""
    settings = worker.setup.settings
    prompts = tuple(conditions_of(worker.subject, None, HELD_OUT, held_out=True))
    replay = build_replay(worker.subject, worker.denoisers, prompts, 1000, settings.timesteps)
    rows = []
    for share in SHARES:
        plans = {name: best(oracle, evidence, problem_of(evidence, share)) for name, evidence in by.items()}
        rows.append({"share": share, **{name: measured(worker, replay, prompts, plan) for name, plan in plans.items()}})
    return rows


if __name__ == "__main__":
    main()
