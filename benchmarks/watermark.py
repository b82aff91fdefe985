"""Tests whether a cap on its noise preserves a watermark: runs `examples/watermark/run.py` and records the machine.

    python -m benchmarks.watermark --work FOLDER [--threads 1]

Reports plans, bytes, predicted and measured bit error rates over many keys, exact binomial tests, an unmarked control,
another key, and the effect of the mark on pictures. Writes benchmarks/results/watermark.json.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import torch
from examples.watermark.run import run_example, table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "watermark.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    result = run_example(args.work)
    about = {"machine": platform.machine(), "threads": args.threads, "torch": torch.__version__}
    args.out.write_text(json.dumps({"about": about, **result}, indent=1) + "\n")
    print(table(result))


if __name__ == "__main__":
    main()
