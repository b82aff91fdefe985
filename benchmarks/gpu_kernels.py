"""Times the CUDA kernels at the shapes of SDXL's UNet, 1024 px, batch 2, fp16: `python -m benchmarks.gpu_kernels`.

For the most expensive layer shapes and each (kernel, scheme): the largest error against the specification (in float64,
relative to the largest output), and median milliseconds of the float16 layer and of the quantized one, eager and
compiled. Both are timed in turn, so that clocks and heat affect both; `gain` is the median of the ratios. Needs a CUDA
device; compiling and tuning take most of the time. Writes benchmarks/results/gpu_kernels.json.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from math import isqrt, prod
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from bitplan.plans.kernels import KERNELS, REFERENCE, geometry_of
from bitplan.plans.layers.modules import kind_of, quantize_module
from bitplan.plans.scheme import parse_scheme

HERE = Path(__file__).parent
BATCH = 2
CALLS = 10  # timed together, so that a launch overlaps the kernel before it, as in a model
PAIRS = (("gpu_int8", "w8a8"), ("gpu_int_mm", "w8a8"), ("gpu_int8", "w4a8"), ("gpu_int8", "w4g64a8"),
         ("gpu_weight_only", "w8a16"), ("gpu_weight_only", "w4g64a16"), ("gpu_weight_only", "fp8a16"))  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """A layer's weight, the positions of its output for one sample, and its stride."""

    weight: tuple[int, ...]
    positions: int
    stride: int

    def layer(self) -> nn.Linear | nn.Conv2d:
        outputs, inputs, *kernel = self.weight
        if not kernel:
            return nn.Linear(inputs, outputs).half().cuda()
        return nn.Conv2d(inputs, outputs, kernel[0], self.stride, kernel[0] // 2).half().cuda()

    def input(self) -> Tensor:
        side = isqrt(self.positions) * self.stride
        size = (self.positions, self.weight[1]) if len(self.weight) == 2 else (self.weight[1], side, side)
        return torch.randn(BATCH, *size, device="cuda", dtype=torch.float16)


def shapes(count: int) -> dict[Shape, int]:
    """Returns the `count` shapes with the most multiply-adds in total, and the number of layers of each."""
    rows = json.loads((HERE / "sdxl_shapes.json").read_text())
    results = Counter(
        Shape(tuple(weight), products // prod(weight), 2 if "downsamplers" in name else 1)
        for name, weight, products, _ in rows
    )
    cost = {shape: layers * prod(shape.weight) * shape.positions for shape, layers in results.items()}
    return {shape: results[shape] for shape in sorted(results, key=lambda shape: -cost[shape])[:count]}


def milliseconds(call: Callable[[], Any]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(CALLS):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / CALLS


def paired(base: Callable[[], Any], call: Callable[[], Any], rounds: int) -> dict[str, float]:
    """Returns median milliseconds of both, timed in turn, and the median of their ratios."""
    for _ in range(3):  # compiles, and tunes
        base(), call()
    times = [(milliseconds(base), milliseconds(call)) for _ in range(rounds)]
    return {
        "fp16_ms": median(a for a, _ in times), "ms": median(b for _, b in times),
        "gain": median(a / b for a, b in times),
    }  # fmt: skip


def row(shape: Shape, name: str, text: str, rounds: int) -> dict[str, Any]:
    """Returns one row of the results."""
    kernel, scheme, layer, x = KERNELS[name], parse_scheme(text), shape.layer(), shape.input()
    about = {"weight": shape.weight, "positions": shape.positions, "kernel": name, "scheme": text}
    reason = kernel.supports(scheme, str(kind_of(layer)), "cuda", geometry_of(layer))
    if reason:
        return about | {"declined": reason}
    quantized = quantize_module(layer, scheme, kernel)
    exact = REFERENCE.run(x.double(), quantized.held)
    error = (quantized(x).double() - exact).abs().max() / exact.abs().max()
    eager = paired(lambda: layer(x), lambda: quantized(x), rounds)
    torch.compiler.reset()
    fast, packed = (torch.compile(module, fullgraph=True, dynamic=False) for module in (layer, quantized))
    compiled = paired(lambda: fast(x), lambda: packed(x), rounds)
    return about | {"error": float(error), "eager": eager, "compiled": compiled}


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "gpu_kernels.json")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit(
            "benchmarks/gpu_kernels.py needs a CUDA device, and torch finds none; run it where there is one"
        )
    torch.manual_seed(0)
    rows = []
    for shape, layers in shapes(args.shapes).items():
        for name, text in PAIRS:
            rows.append(row(shape, name, text, args.rounds) | {"layers": layers})
            print(json.dumps(rows[-1]), flush=True)
    about = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "triton": version("triton"),
             "batch": BATCH, "rounds": args.rounds, "seed": 0}  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"rows": rows, "about": about}, indent=1) + "\n")


if __name__ == "__main__":
    main()
