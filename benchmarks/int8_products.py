"""Claim: w8a8 layers take 0.4 times float32's time with VNNI, and 1.2 to 1.3 times without; tiny layers take longer.

    python -m benchmarks.int8_products [--path float_blocks] [--pairs 9] [--seed 0]

The layers of SD-1.5's kind at 32 x 32 latents and those of the built-in pipeline `scenes`, with random weights: each is
timed beside the same layer in float32, in turn, in CPU seconds of one thread, with a new input at each call and memory
kept as in the cost table. Ratios are medians of paired ratios; `total` weighs the layers of a set by their time. The
comparison for a processor of AVX2 alone restricts float32 as well:

    ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 python -m benchmarks.int8_products

Adds a row to benchmarks/results/int8_products.json, named by the path and ATen's capability.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from bitplan.planner.costs.allocator import kept_memory
from bitplan.planner.costs.machine import about_machine
from bitplan.plans.kernels import choose_kernel
from bitplan.plans.kernels.cpu import int8
from bitplan.plans.kernels.cpu.choice import chosen_path
from bitplan.plans.kernels.cpu.paths import PATHS
from bitplan.plans.layers.modules import kind_of, quantize_module
from bitplan.plans.scheme import parse_scheme

# (rows, inputs, outputs) of linear layers, (batch, channels, side, outputs, kernel, stride) of convolutions
LAYERS: dict[str, tuple[tuple[int, ...], ...]] = {
    "sd": (
        (2048, 320, 320), (2048, 320, 2560), (2048, 1280, 320), (512, 640, 640), (512, 640, 5120), (512, 2560, 640),
        (128, 1280, 1280), (128, 1280, 10240), (154, 768, 320), (154, 768, 1280), (2, 320, 1280), (2, 1280, 640),
        (2, 4, 32, 320, 3, 1), (2, 320, 32, 320, 3, 1), (2, 320, 32, 320, 3, 2), (2, 640, 16, 640, 3, 1),
        (2, 1280, 8, 1280, 3, 1), (2, 960, 32, 320, 1, 1), (2, 320, 32, 4, 3, 1),
    ),
    "scenes": (
        (256, 64, 64), (64, 128, 128), (64, 128, 512), (32, 64, 64), (2, 64, 128), (2, 3, 16, 64, 3, 1),
        (2, 64, 16, 64, 3, 1), (2, 128, 8, 128, 3, 1),
    ),
}  # fmt: skip


def layer_of(sizes: Sequence[int]) -> tuple[nn.Module, Tensor]:
    """A layer with random weights and its input."""
    if len(sizes) == 3:
        rows, inputs, outputs = sizes
        return nn.Linear(inputs, outputs), torch.randn(rows, inputs)
    batch, channels, side, outputs, kernel, stride = sizes
    return nn.Conv2d(channels, outputs, kernel, stride, kernel // 2), torch.randn(batch, channels, side, side)


def paired(runs: Sequence[Callable[[], object]], pairs: int) -> list[list[float]]:
    """CPU milliseconds of each run, taken in turn, after one of each to warm up."""
    spent: list[list[float]] = [[] for _ in runs]
    for turn in range(pairs + 1):
        for own, run in zip(spent, runs, strict=True):
            start = time.process_time()
            run()
            if turn:
                own.append((time.process_time() - start) * 1e3)
    return spent


def measure(sizes: Sequence[int], scheme: str, pairs: int) -> dict[str, Any]:
    """One layer in float32 and at the scheme."""
    layer, x = layer_of(sizes)
    kind = kind_of(layer)
    packed = quantize_module(layer, parse_scheme(scheme), choose_kernel(parse_scheme(scheme), str(kind)))
    full, ours = paired([lambda: layer(x.mul_(1)), lambda: packed(x.mul_(1))], pairs)
    ratios = sorted(b / a for a, b in zip(full, ours, strict=True))
    return {
        "layer": f"{kind} {' x '.join(map(str, sizes))}", "float32_ms": median(full), "ms": median(ours),
        "ratio": median(ratios), "quartiles": [ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]],
    }  # fmt: skip


def results(scheme: str, pairs: int) -> dict[str, Any]:
    sets: dict[str, Any] = {}
    for name, layers in LAYERS.items():
        rows = []
        for sizes in layers:
            rows.append(measure(sizes, scheme, pairs))
            print(name, rows[-1], flush=True)
        total = sum(row["ms"] for row in rows) / sum(row["float32_ms"] for row in rows)
        sets[name] = {"total": total, "median": median(row["ratio"] for row in rows), "layers": rows}
    return sets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", choices=PATHS, help="The path of the products, instead of the one chosen.")
    parser.add_argument("--scheme", default="w8a8")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "int8_products.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    path = args.path or chosen_path()
    int8.chosen_path = lambda: path
    capability = torch.backends.cpu.get_cpu_capability()
    with torch.no_grad(), kept_memory():
        row = results(args.scheme, args.pairs)
    row |= {"path": path, "capability": capability, "seed": args.seed, "pairs": args.pairs, "machine": about_machine()}
    held = json.loads(args.out.read_text()) if args.out.is_file() else {}
    args.out.write_text(json.dumps(held | {f"{path}, {capability}, {args.scheme}": row}, indent=1) + "\n")
    for name in LAYERS:
        print(f"{name}: {row[name]['total']:.2f}x float32 in all, {row[name]['median']:.2f}x the median layer")


if __name__ == "__main__":
    main()
