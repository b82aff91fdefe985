"""Claim: probes find all losses in a small fraction of the time of exhaustive measurement.

    python -m benchmarks.profile_time [scenes|sd15|depth] [--sample 40] [--threads 1]

scenes: the embedded pipeline with default settings. sd15: its text encoder and decoder around a UNet of SD-1.5's size
with random weights, 32x32 latents, one prompt, 2 steps without guidance, default schemes. The exhaustive time is
extrapolated from a random sample of (layer, scheme), by whole runs and by resumed ones in turn; recording counts once.
Probes: everything from the unrolled run to the estimates, and the 16 checks as whole runs. Also the cost of twice the
schemes. depth: random UNets of one and of three layers a block, for the cost of more layers. Times are CPU seconds.
Adds to benchmarks/results/profile_time.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel

from bitplan.planner.costs.candidates import candidates, parse_schemes
from bitplan.planner.measurement.jobs import Job
from bitplan.planner.measurement.methods.exhaustive import measure as measure_exhaustively
from bitplan.planner.measurement.methods.probes import measure as measure_by_probes
from bitplan.planner.measurement.resume import run_from
from bitplan.planner.measurement.run import setup_of
from bitplan.planner.measurement.worker import Settings, Worker, worker_of
from bitplan.planner.pipelines.conditions import built_in_prompts
from bitplan.planner.pipelines.generation import Generation
from bitplan.planner.pipelines.sources import DEFAULTS, load_pipeline
from bitplan.planner.pipelines.subject import run_subject, subject_of
from bitplan.planner.pipelines.traced import examine
from bitplan.planner.profiles.profile import Pair
from bitplan.planner.scenes import SCENES
from bitplan.planner.verbs.parameters import DEFAULT_SCHEMES
from bitplan.plans.scheme import KEEP
from bitplan.sensitivity.calibration.ranges import ActivationRange, calibrate
from bitplan.sensitivity.runs.exhaustive import measure_layers

CHECKS, ROUND = 16, 4
MORE = ("w8ma8", "w6ma8", "w5a8", "w4a8", "w3a8", "w8g64a8", "w6g64a8", "w5g64ma8", "w8za8")


def settings_of(which: str) -> Settings:
    if which == SCENES:
        return Settings(SCENES, tuple(built_in_prompts(True, 8)), DEFAULT_SCHEMES, DEFAULTS[SCENES], 4, 4, (), None)
    prompts = tuple(built_in_prompts(True, 1))
    return Settings(which, prompts, DEFAULT_SCHEMES, Generation(2, 1.0), 2, 4, (), None)


UNETS = {
    "sd15": {"sample_size": 32, "block_out_channels": (320, 640, 1280, 1280), "layers_per_block": 2},
    "shallow": {"sample_size": 16, "block_out_channels": (64, 64, 64, 64), "layers_per_block": 1},
    "deep": {"sample_size": 16, "block_out_channels": (64, 64, 64, 64), "layers_per_block": 3},
}


def pipeline_of(which: str) -> Any:
    pipe = load_pipeline(SCENES)
    if which != SCENES:
        torch.manual_seed(0)
        same = {key: pipe.unet.config[key] for key in ("cross_attention_dim", "in_channels", "out_channels")}
        pipe.unet = UNet2DConditionModel(attention_head_dim=8, **UNETS[which], **same).eval()
    return pipe


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def worker_of_profile(which: str) -> tuple[Worker, list[Pair]]:
    settings = settings_of(which)
    subject = subject_of(pipeline_of(which), settings.generation, SCENES)
    traced = examine(subject, settings.prompts)
    limits = calibrate(traced.modules, lambda: run_subject(subject, settings.prompts, settings.generation.seed))
    ranges: dict[str, ActivationRange] = dict(limits)
    offered = candidates(traced.graph, traced.modules, parse_schemes(settings.schemes), ranges)
    pairs = [(c.layer, str(c.scheme)) for c in offered if c.scheme != KEEP]
    return worker_of(setup_of(traced, settings, ranges), subject), pairs


def resumed_run(worker: Worker, pair: Pair) -> Iterator[Any]:
    """Measures once from the layer's first call."""
    reference, judge, module = worker.replay.reference, worker.metric_set, worker.module(pair[0])
    variants = {pair: lambda: worker.variant(*pair, {})}
    run = lambda _: run_from(worker.recorded_replay, module)  # noqa: E731
    return measure_layers(variants, run, reference, judge.metrics, judge.encoder, judge.texts)


def exhaustive(worker: Worker, sample: list[Pair]) -> dict[str, Any]:
    """Returns CPU seconds of one measurement by whole runs and by resumed ones; the first is a warm-up."""
    whole: list[float] = []
    resumed: list[float] = []
    for pair in [sample[0], *sample]:
        whole.append(seconds(lambda pair=pair: list(measure_exhaustively(worker, Job("exhaustive", (pair,))))))
        resumed.append(seconds(lambda pair=pair: list(resumed_run(worker, pair))))
        print(pair, whole[-1], resumed[-1], flush=True)
    return {"whole": float(np.mean(whole[1:])), "resumed": float(np.mean(resumed[1:])),
            "median_ratio_resumed": float(np.median(np.array(resumed[1:]) / np.array(whole[1:])))}  # fmt: skip


def probes(worker: Worker, pairs: list[Pair]) -> float:
    """Returns CPU seconds of all rounds."""
    fresh = replace(worker)  # without the grids found before
    count = len(fresh.context.settings.prompts)
    cuts = [(at, min(at + ROUND, count)) for at in range(0, count, ROUND)]
    return sum(
        seconds(lambda cut=cut: list(measure_by_probes(fresh, Job("probes", tuple(pairs), cut)))) for cut in cuts
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=(SCENES, "sd15", "depth"))
    parser.add_argument("--sample", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--growth", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "profile_time.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.which == "depth":
        keep(args.out, "depth", depth())
        return
    worker, pairs = worker_of_profile(args.which)
    ours = probes(worker, pairs)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print("probes", ours, "peak MiB", peak, flush=True)
    random = np.random.default_rng(0)
    sample = [pairs[i] for i in sorted(random.choice(len(pairs), args.sample, replace=False))]
    recording = seconds(lambda: worker.recorded_replay)
    each = exhaustive(worker, sample)
    checked = ours + CHECKS * each["whole"]
    row = {
        "pairs": len(pairs), "layers": len({layer for layer, _ in pairs}), "sample": len(sample),
        "exhaustive_each": each, "recording": recording, "probes": ours, "probes_and_checks": checked,
        "peak_MiB_after_probes": peak,
        "ratio_to_whole_runs": checked / (len(pairs) * each["whole"]),
        "ratio_to_resumed_runs": checked / (recording + len(pairs) * each["resumed"]),
        "ratio_without_checks": ours / (recording + len(pairs) * each["resumed"]),
        "seed": 0, "threads": args.threads, "machine": platform.machine(), "torch": torch.__version__,
    }  # fmt: skip
    if args.growth:
        layers = dict.fromkeys(layer for layer, _ in pairs)
        wide = [
            (layer, scheme) for layer in layers for scheme in (*DEFAULT_SCHEMES, *MORE) if _fits(pairs, layer, scheme)
        ]
        row["twice_the_schemes"] = {"pairs": len(wide), "times": probes(worker, wide) / probes(worker, pairs)}
    keep(args.out, args.which, row)


def keep(path: Path, name: str, row: dict[str, Any]) -> None:
    stored = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(stored | {name: row}, indent=1) + "\n")
    print(json.dumps(row, indent=1))


def depth() -> dict[str, Any]:
    """Returns layers and CPU seconds of probes; the first run is a warm-up."""
    rows = {}
    for name in ("shallow", "shallow", "deep"):
        worker, pairs = worker_of_profile(name)
        rows[name] = {"layers": len({layer for layer, _ in pairs}), "seconds": probes(worker, pairs)}
    small, large = rows["shallow"], rows["deep"]
    return rows | {
        "layers_times": large["layers"] / small["layers"],
        "seconds_times": large["seconds"] / small["seconds"],
    }


def _fits(pairs: list[Pair], layer: str, scheme: str) -> bool:
    """Returns whether the layer is wide enough for groups, by its other schemes with groups."""
    return "g64" not in scheme or (layer, "w4g64ma8") in set(pairs)


if __name__ == "__main__":
    main()
