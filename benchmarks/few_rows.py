"""Claim: with few rows, bfloat16 inputs are multiplied faster by int8 codes than by dequantized weights.

    python -m benchmarks.few_rows

Compares `torch._weight_int8pack_mm` on unpacked codes with dequantizing and a float product, for schemes without input
rounding. Reports medians of paired CPU times with one thread. Writes benchmarks/results/few_rows.json.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from benchmarks.about import about, write_result

from bitplan.plans.formats.storage import quantize
from bitplan.plans.kernels.cpu.weight_only import _dequantized, _few_rows
from bitplan.plans.scheme import parse_scheme

ROWS, SHAPES, REPEATS = (1, 2, 4, 8, 16, 32, 64, 128), ((1280, 320), (1280, 1280), (5120, 1280)), 15


def paired(first: Callable[[], object], second: Callable[[], object]) -> float:
    """Returns the median ratio of the first time to the second."""
    ratios = []
    for turn in range(REPEATS + 1):
        stamps = [time.thread_time()]
        for run in (first, second):
            run()
            stamps.append(time.thread_time())
        if turn:
            ratios.append((stamps[1] - stamps[0]) / (stamps[2] - stamps[1]))
    return statistics.median(ratios)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "few_rows.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = []
    for outputs, inputs in SHAPES:
        for scheme in ("w8a16", "w4a16"):
            packed = quantize(torch.randn(outputs, inputs), parse_scheme(scheme).weight)
            for dtype in (torch.bfloat16, torch.float32):
                results = {}
                for count in ROWS:
                    x = torch.randn(count, inputs).to(dtype)
                    take = (x, packed, (0, outputs), None, None)
                    results[count] = paired(lambda take=take: _dequantized(*take), lambda take=take: _few_rows(*take))
                rows.append({"shape": (outputs, inputs), "scheme": scheme, "dtype": str(dtype), "times": results})
                print(rows[-1], flush=True)
    write_result(args.out, {"rows": rows}, about(0))


if __name__ == "__main__":
    main()
