"""Claim: plans run faster than the float model on this CPU, whole denoisers, and the cost table predicts by how much.

    python -m benchmarks.cpu_speed [unet|dit] [--threads 1] [--compiled] [--plans 20 [--seed 0]]

unet: UNet2DConditionModel of 316 M parameters (320, 640, 1280 channels, one layer a block), batch 2 at 32 x 32
latents. dit: DiTTransformer2DModel, 4 layers of width 1152, 1024 tokens. Weights are random. Times are medians of one
denoiser call; the variants run in turn. The plans w8a8 and w4a8 use that scheme in each layer where the cost table
gives it no more time than full precision; `int8_products_alone_ms` is the time of the int8 products alone. --plans:
number of plans with random schemes, whose share of full precision's time is predicted from the cost table. Adds to
benchmarks/results/cpu_speed.json.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from diffusers import DiTTransformer2DModel, UNet2DConditionModel
from scipy.stats import spearmanr
from torch import nn

from bitplan.planner.costs.candidates import Candidate
from bitplan.planner.costs.clock import median_ms
from bitplan.planner.costs.table import cost_candidates
from bitplan.planner.evaluation.speed import PLAN, TimedVariant, Timing, baseline, seconds_in_turn, time_variants
from bitplan.planner.graph.layers import LayerGraph
from bitplan.planner.graph.trace import trace
from bitplan.plans.layers.swap import find_layer, swap
from bitplan.plans.scheme import KEEP, parse_scheme
from bitplan.sensitivity.runs.calls import RecordedCall

SCHEMES = ("w8a8", "w6a8", "w4a8", "w3a8", "w2a8", "w4g64a8")
NAME = "denoiser"


def build(which: str) -> tuple[nn.Module, RecordedCall]:
    torch.manual_seed(0)
    if which == "dit":
        model: Any = DiTTransformer2DModel(
            num_attention_heads=16, attention_head_dim=72, in_channels=4, out_channels=4, num_layers=4, sample_size=64,
            patch_size=2,
        )  # fmt: skip
        inputs = {"timestep": torch.tensor([500]), "class_labels": torch.tensor([3])}
        return model.eval(), RecordedCall((torch.randn(1, 4, 64, 64),), inputs)
    model = UNet2DConditionModel(
        sample_size=32, block_out_channels=(320, 640, 1280), layers_per_block=1, cross_attention_dim=768,
        attention_head_dim=8, down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    return model.eval(), RecordedCall((torch.randn(2, 4, 32, 32), torch.tensor(500), torch.randn(2, 77, 768)), {})


@torch.no_grad()
def graph_of(model: nn.Module, call: RecordedCall) -> LayerGraph:
    return trace({NAME: model}, lambda: model(*call.args, **call.kwargs))


def products_alone(graph: LayerGraph) -> float:
    """Returns milliseconds of the int8 products of all layers, a lower bound for layers that use `torch._int_mm`."""
    total, known = 0.0, {}
    for layer in graph.layers:
        for its in layer.calls:
            shape = (prod(its.output) // layer.weight[0], prod(layer.weight[1:]), layer.weight[0])
            if shape not in known:
                left, right = (torch.ones(rows, shape[1], dtype=torch.int8) for rows in (shape[0], shape[2]))
                known[shape] = median_ms(lambda left=left, right=right: torch._int_mm(left, right.t()))
            total += known[shape] * its.count
    return total


def costs_of(model: nn.Module, graph: LayerGraph) -> dict[str, dict[str, float]]:
    """Returns layer -> scheme -> milliseconds of its calls."""
    parts = {NAME: model}
    modules = {layer.address: find_layer(parts, layer.address) for layer in graph.layers}
    pending = [Candidate(a, s, None) for a in modules for s in (KEEP, *map(parse_scheme, SCHEMES))]
    results: dict[str, dict[str, float]] = {}
    for cost in cost_candidates(pending, graph, modules):
        results.setdefault(cost.layer, {})[cost.scheme] = cost.ms or 0.0
    return results


def planned(which: str, schemes: Mapping[str, str], name: str) -> TimedVariant:
    model, call = build(which)
    swap({NAME: model}, {layer: parse_scheme(text) for layer, text in schemes.items()}, keep_originals=False)
    return TimedVariant(name, model, call)


def on_merit(costs: Mapping[str, Mapping[str, float]], scheme: str) -> dict[str, str]:
    """Returns the scheme for layers where it is no slower than full precision, `keep` for the others."""
    return {layer: scheme if its[scheme] <= its["keep"] else "keep" for layer, its in costs.items()}


def whole(which: str, costs: Mapping[str, Mapping[str, float]], pairs: int, compiled: bool) -> list[Timing]:
    model, call = build(which)
    variants = [baseline(dtype, model, call) for dtype in ("float32", "bfloat16")]
    variants += [planned(which, on_merit(costs, scheme), f"{PLAN} {scheme}") for scheme in ("w8a8", "w4a8")]
    if compiled:
        variants += [replace(v, compiled=True, baseline=False) for v in variants[1:]]
    return list(time_variants(variants, pairs))


def random_plan(random: np.random.Generator, layers: Iterable[str]) -> dict[str, str]:
    """Draws a scheme for each layer."""
    share = random.random()  # of layers that are kept, so that plans differ
    return {a: "keep" if random.random() < share else str(random.choice(SCHEMES)) for a in layers}


def predictions(which: str, pairs: int, count: int, seed: int) -> dict[str, Any]:
    """Compares predicted and measured shares of full precision's time for random plans.

    Each plan runs in turn with full precision; measured shares are medians of paired ratios, or ratios of the fastest
    calls, which other load on the machine affects least. Full precision is timed before and after the cost table, so
    that all parts of a prediction are from the same time.
    """
    model, call = build(which)
    full = baseline("float32", model, call, channels_last=False)
    before = seconds_in_turn([full], pairs)[0]
    costs = costs_of(model, graph_of(model, call))
    whole = median((*before, *seconds_in_turn([full], pairs)[0])) * 1e3
    random, rows = np.random.default_rng(seed), []
    for number in range(count):
        picks = random_plan(random, costs)
        base, mine = seconds_in_turn([full, planned(which, picks, f"{PLAN} {number}")], pairs)
        saved = sum(of["keep"] - of[picks[a]] for a, of in costs.items())
        paired = median(m / b for m, b in zip(mine, base, strict=True))
        rows.append({"predicted": 1 - saved / whole, "measured": paired, "fastest": min(mine) / min(base),
                     "ms": median(mine) * 1e3, "float32_ms": median(base) * 1e3})  # fmt: skip
        print(rows[-1], flush=True)
    about = {"layers": len(costs), "layers_ms": sum(of["keep"] for of in costs.values()), "float32_ms": whole}
    return about | {"plans": rows} | agreement(rows, "measured") | {"by_fastest_calls": agreement(rows, "fastest")}


def agreement(rows: Sequence[Mapping[str, float]], key: str) -> dict[str, float]:
    errors = [row["predicted"] / row[key] - 1 for row in rows]
    ranks = spearmanr([row["predicted"] for row in rows], [row[key] for row in rows])
    return {
        "within_10_percent": sum(abs(error) <= 0.1 for error in errors), "median_error": median(map(abs, errors)),
        "mean_bias": sum(errors) / len(errors), "spearman": float(ranks.statistic),
    }  # fmt: skip


def variants(which: str, pairs: int, compiled: bool) -> dict[str, Any]:
    """Times the float types and the plans, and the lower bounds."""
    model, call = build(which)
    graph = graph_of(model, call)
    costs = costs_of(model, graph)
    return {
        "layers": len(costs), "kept": {s: list(on_merit(costs, s).values()).count("keep") for s in ("w8a8", "w4a8")},
        "layers_in_float32_ms": sum(its["keep"] for its in costs.values()),
        "int8_products_alone_ms": products_alone(graph),
        "variants": [vars(timing) for timing in whole(which, costs, pairs, compiled)],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=("unet", "dit"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=11)
    parser.add_argument("--compiled", action="store_true", help="Also compiled, which takes minutes to compile.")
    parser.add_argument("--plans", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0, help="Of the random plans.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "cpu_speed.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    name = f"{args.which}, {args.threads} threads"
    if args.plans:
        name, row = f"{name}, predictions", predictions(args.which, args.pairs, args.plans, args.seed)
    else:
        name, row = f"{name}{', compiled' * args.compiled}", variants(args.which, args.pairs, args.compiled)
    row |= {"machine": platform.machine(), "torch": torch.__version__, "threads": args.threads, "seed": args.seed}
    stored = json.loads(args.out.read_text()) if args.out.is_file() else {}
    args.out.write_text(json.dumps(stored | {name: row}, indent=1) + "\n")
    print(json.dumps(row, indent=1))


if __name__ == "__main__":
    main()
