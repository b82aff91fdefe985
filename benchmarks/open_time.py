"""Times the opening of a large profile by this checkout against another one, such as an older version.

    python -m benchmarks.open_time --other FOLDER

The profile has 20,000 layers of one shape and 10 schemes, with random costs and losses. Each checkout opens it in a
process of its own, in turn. Reports medians of CPU seconds and of the paired ratios, one thread. Writes
benchmarks/results/open_time.json.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from benchmarks.about import about, write_result
from benchmarks.commands import HERE, seconds
from benchmarks.explore_latency import HEADER

from bitplan.planner.graph.layers import Layer, LayerCall, LayerGraph, to_json
from bitplan.planner.profiles.profile import Cost, Profile
from bitplan.planner.verbs.parameters import DEFAULT_SCHEMES
from bitplan.sensitivity.table import Measurement

SEED = 0
CODE = """
import sys, time
from bitplan.planner.profiles.profile import open_profile
for _ in range(3):
    start = time.process_time()
    open_profile(sys.argv[1]).close()
    print(time.process_time() - start)
"""


def profile_of(path: Path, count: int) -> Path:
    """Writes a profile of `count` linear layers with random costs and losses, and returns its path."""
    random, schemes = np.random.default_rng(SEED), ("keep", *DEFAULT_SCHEMES)
    names = [f"unet.blocks.{number}.attn.to_q" for number in range(count)]
    call = LayerCall((1, 64), (1, 64), 4096, 20)
    layers = tuple(Layer(name, (), "linear", (64, 64), True, 4096, None, (call,), "self-attention") for name in names)
    ms, losses = random.uniform(0.1, 1, (count, len(schemes))), random.uniform(0, 1, (count, len(schemes)))
    pairs = [(name, scheme, i, j) for i, name in enumerate(names) for j, scheme in enumerate(schemes)]
    with Profile.create(path, HEADER) as store:
        store.write_graph(to_json(LayerGraph(layers, (), (), (), ())), schemes)
        store.write_costs(Cost(name, s, 4096, float(ms[i, j]), "none", False, 0.01) for name, s, i, j in pairs)
        store.write_measurements(
            [Measurement(name, s, "nsr", float(losses[i, j]), float(losses[i, j]) / 10, 8) for name, s, i, j in pairs
             if s != "keep"], {"nsr": "quality"},
        )  # fmt: skip
    return path


def opening(root: Path, profile: Path) -> float:
    """Returns the median CPU seconds of three openings by the checkout."""
    return statistics.median(map(float, seconds(root, [sys.executable, "-c", CODE, str(profile)])[2].split()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", type=Path, required=True, help="a checkout of the version to compare with")
    parser.add_argument("--layers", type=int, default=20_000)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "open_time.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        profile = profile_of(Path(folder) / "large.profile", args.layers)
        size = profile.stat().st_size
        rows = [[opening(root, profile) for root in (HERE, args.other.resolve())] for _ in range(args.pairs)]
    result = {
        "layers": args.layers, "schemes": 1 + len(DEFAULT_SCHEMES), "bytes": size,
        "cpu_seconds": {"this": statistics.median(a for a, _ in rows), "other": statistics.median(b for _, b in rows),
                        "ratio": statistics.median(a / b for a, b in rows)},
        "ratios": [a / b for a, b in rows],
    }  # fmt: skip
    write_result(args.out, result, about(SEED, pairs=args.pairs))
    print(result)


if __name__ == "__main__":
    main()
