"""Tests whether `bitplan check` recognises the fine-tunes of `scenes` for which a profile of `scenes` still holds.

    python -m benchmarks.transfer FOLDER [--threads 1] [--count 24]

FOLDER stores the result of each stage, so the same command resumes: variants of the UNet from a seed
(`benchmarks.transfer_variants`); a profile by probes of each and of `scenes`; plans of both at three budgets, measured
on the variant with held-out prompts, which is the ground truth; and `check` of the profile of `scenes` against each
variant. With the variant's own profile in place of new measurements it also reports how often each verdict occurs for
other samples. Writes benchmarks/results/transfer.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.about import about, write_result
from benchmarks.transfer_variants import MAKERS, make
from scipy.stats import spearmanr

import bitplan
from bitplan.planner.choice.evidence import Evidence, read_evidence
from bitplan.planner.choice.problem import formulate
from bitplan.planner.evaluation.evaluator import build_evaluator
from bitplan.planner.evaluation.plans import losses_of
from bitplan.planner.finetunes.ratios import ratios_of
from bitplan.planner.pipelines.conditions import built_in_prompts, held_out_prompts
from bitplan.planner.pipelines.sources import DEFAULTS, load_subject
from bitplan.planner.profiles.corrections import corrections_of
from bitplan.planner.profiles.profile import open_profile
from bitplan.planner.scenes import CLIP_FOLDER, SCENES
from bitplan.sensitivity.agreement import compare
from bitplan.sensitivity.table import FAMILIES
from bitplan.solvers.questions.regret import choose_sample, hull_steps, judge, reference_plans

BUDGETS = ("10%", "14%", "20%")
SAMPLES, STARTS = (12, 24, 48), 10
TOLERANCE = 0.25
FULL = DEFAULTS[SCENES]


def cached(path: Path, work: Callable[[], Any]) -> Any:
    """Returns the contents of the JSON file, which is made where it is missing."""
    if not path.is_file():
        results = work()
        path.write_text(json.dumps(results) + "\n")
    return json.loads(path.read_text())


def profile_of(name: str, folder: Path) -> Path:
    """Profiles a variant, or `scenes`, by probes with the settings of `bitplan profile scenes`."""
    pipeline = SCENES if name == SCENES else str(make(name, folder, 0))
    return bitplan.profile(
        pipeline, folder / f"{name}.profile", prompts=built_in_prompts(True, 8), steps=FULL.steps,
        guidance=FULL.guidance, clip=None if name == SCENES else str(CLIP_FOLDER),
    )  # fmt: skip


def evidence_of(path: Path) -> Evidence:
    with open_profile(path) as store:
        return read_evidence(store)


def plans_measured(name: str, folder: Path, count: int) -> dict[str, Any]:
    """Returns budget -> metric -> losses of the old profile's plan and of the new one's, on the variant."""
    subject = load_subject(str(make(name, folder, 0)), FULL)
    evaluator, rows = None, {}
    for budget in BUDGETS:
        plans = {
            whose: bitplan.solve(folder / f"{profile}.profile", folder / "p.plan.yaml", memory=budget)
            for whose, profile in (("old", SCENES), ("own", name))
        }
        if evaluator is None:
            layers, prompts = list(plans["old"].schemes), held_out_prompts(count)
            evaluator = build_evaluator(subject, layers, prompts, 1000, clip=str(CLIP_FOLDER))
        rows[budget] = {whose: losses_of(evaluator, plan, "fake") for whose, plan in plans.items()}
        rows[budget]["layers that differ"] = sum(
            scheme != plans["own"].schemes[layer] for layer, scheme in plans["old"].schemes.items()
        )
        print(name, budget, rows[budget], flush=True)
    return rows


def checked(name: str, folder: Path, sample: int = 24) -> dict[str, Any]:
    start = time.process_time()
    results = bitplan.check(folder / f"{SCENES}.profile", str(folder / name), sample=sample, tolerance=TOLERANCE)
    print(results, flush=True)
    return results.to_json() | {"cpu_seconds": time.process_time() - start}


def by_profiles(old: Evidence, new: Evidence) -> dict[str, Any]:
    """Compares two whole profiles: for each family the old plans' loss over the best of their bytes, both by the new
    losses, averaged over budgets; and Spearman correlations over all pairs and over those that plans decide about.
    """
    results = {}
    before, after = (formulate(evidence, {}, (), real=True) for evidence in (old, new))
    for family in FAMILIES:
        plans = reference_plans(before, hull_steps(before, before.column(family)))
        best = hull_steps(after, after.column(family))
        sizes = best.bytes[plans.picks].sum(1)
        start = best.bytes[best.start].sum()
        saved = np.interp(
            sizes - start, np.cumsum(np.insert(best.size, 0, 0.0)), np.cumsum(np.insert(best.gain, 0, 0.0))
        )
        regret = best.loss[plans.picks].sum(1) / (best.loss[best.start].sum() - saved) - 1
        results[family] = {"regret": float(regret.mean()), "by_budget": regret.tolist(),
                         "spearman": float(spearmanr(before.column(family), after.column(family))[0])}  # fmt: skip
    return results


def rates(folder: Path, name: str) -> dict[str, dict[str, int]]:
    """Returns sample size -> the frequency of each verdict over samples of the variant's own profile."""
    with open_profile(folder / f"{SCENES}.profile") as store:
        old, scatters = read_evidence(store), {m: its.scatter for m, its in corrections_of(store).items()}
    new = evidence_of(folder / f"{name}.profile").losses.measurements
    problem = formulate(old, {}, (), real=True)
    steps = hull_steps(problem, sum(problem.column(family) for family in FAMILIES))
    plans = reference_plans(problem, steps)
    own = {f: hull_steps(problem, problem.column(f)) for f in FAMILIES}
    references = {f: reference_plans(problem, own[f]) for f in FAMILIES}
    tally = {}
    for size in SAMPLES:
        counts: Counter[str] = Counter()
        for turn in range(STARTS):
            sample = choose_sample(steps, plans, size, (turn + 0.5) / STARTS)
            groups = np.array([group for group, _ in sample])
            pairs = [(problem.groups[g], problem.candidates[g][at - problem.offsets[g]]) for g, at in sample]
            compared = compare(
                old.losses.measurements, [new[*pair, m] for pair in pairs for m in old.metrics], scatters
            )
            verdicts = {
                judge(f, (groups, *ratios_of(old, f, pairs, compared)), own[f], references[f], TOLERANCE, turn).verdict
                for f in FAMILIES
            }
            counts[next(v for v in ("does not hold", "cannot tell", "holds") if v in verdicts)] += 1
        tally[str(size)] = dict(counts)
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--count", type=int, default=24, help="held-out prompts")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "transfer.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    args.folder.mkdir(parents=True, exist_ok=True)
    old = evidence_of(profile_of(SCENES, args.folder))
    rows = {}
    for name in MAKERS:
        new = evidence_of(profile_of(name, args.folder))
        rows[name] = {
            "by_profiles": by_profiles(old, new),
            "plans": cached(
                args.folder / f"{name}.plans.json", lambda n=name: plans_measured(n, args.folder, args.count)
            ),
            "check": cached(args.folder / f"{name}.check.json", lambda n=name: checked(n, args.folder)),
            "rates": cached(args.folder / f"{name}.rates.json", lambda n=name: rates(args.folder, n)),
        }
        rows[name]["check"].pop("compared", None)
        print(name, json.dumps(rows[name]["by_profiles"]), rows[name]["check"]["sentence"], flush=True)
        described = about(0, held_out_prompts=args.count, generation=asdict(FULL))
        write_result(args.out, {"variants": rows}, described)


if __name__ == "__main__":
    main()
