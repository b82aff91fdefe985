"""Gives BitPlan nasty files and command lines: no traceback, no nonsense accepted, no write outside --out, no import.

    python -m benchmarks.fuzz [--cases 1000] [--seed 0] [--family profiles [--case 17]]

The families are those of `tests/fuzz/families.py`. Each case is a function of the seed and its number, and runs alone
with --family and --case, which prints what it did and keeps its folder. A case fails if a command raises, ends with
another exit code than those of docs/scripting.md or with more than one line, takes over 10 s of CPU time or 1 GiB,
writes, reads or imports what it must not, or accepts what an independent check finds wrong. The results are written to
benchmarks/results/fuzz.json, also after Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}

from tests.fuzz.box import install  # noqa: E402
from tests.fuzz.engine import Result, in_fork, run_case, run_family, summary  # noqa: E402
from tests.fuzz.families import FAMILIES, shares  # noqa: E402
from tests.fuzz.world import World, build, preload  # noqa: E402
from tqdm import tqdm  # noqa: E402

MEMORY = "/dev/shm"  # files that many cases write and remove are best in memory


def results_of(args: argparse.Namespace, world: World) -> Iterator[Result]:
    """Yields the results of all families, until interrupted."""
    counts = shares(args.cases, tuple(args.family or ()))
    with tqdm(total=sum(counts.values()), disable=False, mininterval=2.0) as bar:
        for name, count in counts.items():
            bar.set_description(name)
            for result in run_family(FAMILIES[name], args.seed, range(args.first, args.first + count), world):
                bar.update()
                for kind, _ in result.findings:
                    bar.write(f"{name} {result.number}: {kind}", sys.stderr)
                yield result


def run_one(args: argparse.Namespace, world: World) -> None:
    """Runs one case in this process and prints it."""
    install()
    result, case = run_case(FAMILIES[args.family[0]], args.seed, args.case, world)
    print("\n".join(case.edits))
    for answer in case.answers:
        print("$", " ".join(answer.words)[:500], "->", answer.code)
        print(answer.out[:300], answer.err[:1000], sep="")
    print(f"{result.seconds:.2f} s in {case.box.root}")
    for kind, details in result.findings:
        print(f"FAILED {kind}\n    {details}")


def about(args: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """The run and the machine."""
    return {"seed": args.seed, "first": args.first, "machine": platform.machine(), "python": platform.python_version(),
            "cpus": os.cpu_count(), "threads": 1, "seconds": seconds,
            **{name: version(name) for name in ("torch", "diffusers", "transformers", "numpy")}}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000, help="in all, shared among the families")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the number of the first case of each family")
    parser.add_argument("--family", action="append", choices=[*FAMILIES], help="may be given several times")
    parser.add_argument("--case", type=int, help="run this one case of --family and print it")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "fuzz.json")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bitplan-fuzz-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
    preload()
    in_fork(lambda: build(folder) and None)
    world, start, results = World(folder), time.monotonic(), list[Result]()
    if args.case is not None:
        return run_one(args, world)
    try:
        for result in results_of(args, world):
            results.append(result)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    failed = sum(bool(result.findings) for result in results)
    data = {"cases": len(results), "failed": failed, "families": summary(results),
            "about": about(args, time.monotonic() - start)}  # fmt: skip
    args.out.write_text(json.dumps(data, indent=1) + "\n")
    print(json.dumps(data, indent=1))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
