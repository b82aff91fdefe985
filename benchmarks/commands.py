"""Times the commands of this checkout against those of another one, such as an older version.

    python -m benchmarks.commands --other FOLDER --profile scenes.profile

Runs `--help`, `solve` of a saved profile, `apply` of `scenes@12%`, and the call of `apply` on a loaded pipeline, each
in a process of its own, the two checkouts in turn. Reports medians of the paired ratios of CPU time (user and system)
and of wall time, one thread. The other checkout needs no installation. Writes benchmarks/results/commands.json.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.about import about, write_result

HERE = Path(__file__).parents[1]
PROMPT = "a small red circle in the center on a white background"
CALL = """
import time, {package} as bitplan
from {loader} import load_pipeline
pipe = load_pipeline("scenes")
for _ in range({repeats}):
    start = time.process_time()
    bitplan.apply(pipe, "scenes@12%")
    print(time.process_time() - start)
    bitplan.restore(pipe)
"""


def command_of(root: Path, words: list[str]) -> list[str]:
    """Returns the command line that runs `bitplan WORDS` of the checkout."""
    module = "bitplan" if (root / "src" / "bitplan").is_dir() else "planner.cli"
    return [sys.executable, "-m", module, *words]


def seconds(root: Path, command: list[str]) -> tuple[float, float, str]:
    """Runs a command; returns CPU seconds, wall seconds and standard output. Raises CalledProcessError."""
    paths = os.pathsep.join((str(root / "src"), str(root)))
    env = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:  # no checkout's folders are beside the command
        done = subprocess.run(command, env=env, cwd=folder, check=True, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, time.perf_counter() - start, done.stdout


def paired(roots: tuple[Path, Path], words: list[str], pairs: int) -> dict[str, Any]:
    """Returns medians of both checkouts' times and of the paired ratios this / other."""
    rows: list[tuple[tuple[float, float, str], ...]] = []
    for turn in range(pairs + 1):
        row = tuple(seconds(root, command_of(root, words)) for root in roots)
        rows += [row] if turn else []  # the first pair fills the caches
    result: dict[str, Any] = {}
    for place, name in enumerate(("cpu", "wall")):
        mine, others = ([row[root][place] for row in rows] for root in (0, 1))
        ratios = [a / b for a, b in zip(mine, others, strict=True)]
        result[name] = {"this": statistics.median(mine), "other": statistics.median(others),
                        "ratio": statistics.median(ratios), "ratios": ratios}  # fmt: skip
    return result


def apply_call(root: Path, repeats: int) -> float:
    """Returns the median CPU seconds of `apply` on a loaded pipeline."""
    new = (root / "src" / "bitplan").is_dir()
    loader = "bitplan.planner.pipelines.sources" if new else "planner.pipelines"
    code = CALL.format(package="bitplan" if new else "planner", loader=loader, repeats=repeats)
    lines = seconds(root, [sys.executable, "-c", code])[2].split()
    return statistics.median(map(float, lines[1:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", type=Path, required=True, help="a checkout of the version to compare with")
    parser.add_argument("--profile", type=Path, required=True, help="a profile of `scenes` that both versions read")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "commands.json")
    args = parser.parse_args()
    roots = (HERE, args.other.resolve())
    profile = str(args.profile.resolve())
    rows = {
        "--help": paired(roots, ["--help"], 3 * args.pairs),
        "solve --memory 12%": paired(roots, ["solve", profile, "--memory", "12%", "--out", "p.plan.yaml"], args.pairs),
        "apply scenes@12%": paired(
            roots, ["apply", "scenes@12%", "scenes", "--prompt", PROMPT, "--steps", "1", "--out", "i.png"], args.pairs
        ),
    }
    calls = [[apply_call(root, 6) for root in roots] for _ in range(args.pairs)]
    rows["apply(pipe, ...), the call"] = {"cpu": {
        "this": statistics.median(a for a, _ in calls), "other": statistics.median(b for _, b in calls),
        "ratio": statistics.median(a / b for a, b in calls), "ratios": [a / b for a, b in calls],
    }}  # fmt: skip
    for name, row in rows.items():
        print(name, {kind: {k: round(v, 3) for k, v in its.items() if k != "ratios"} for kind, its in row.items()})
    write_result(args.out, {"rows": rows, "pairs": args.pairs}, about(None))


if __name__ == "__main__":
    main()
