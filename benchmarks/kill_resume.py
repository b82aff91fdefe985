"""Claim: a profile killed at any moment and continued ends with the measurements of an undisturbed one, bit for bit.

    python -m benchmarks.kill_resume [--times 10] [--seed 0]

Kills the profiling of a tiny pipeline with SIGKILL at random moments and resumes it after each. Writes and prints
JSON: the rows on the disk before and after each killed run, and the content digests of both profiles.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests import tiny
from tests.planner.support.killing import Run, finish, kills, progress


def kill_and_resume(folder: Path, times: int, seed: int) -> dict[str, Any]:
    (folder / "prompts.txt").write_text("\n".join(tiny.PROMPTS))
    whole = Run(tiny.save_pipeline(folder / "pipeline"), tiny.save_clip(folder / "clip"), folder / "prompts.txt",
                folder / "whole.profile")  # fmt: skip
    undisturbed = finish(whole)
    killed = dataclasses.replace(whole, out=folder / "killed.profile")
    moments = list(kills(killed, progress(whole.out), times, seed))
    resumed = finish(killed)
    return {
        "kills": [{"rows_before": before, "rows_after": after} for before, after in moments],
        "rows": progress(whole.out),
        "rows_resumed": progress(killed.out),
        "digest": undisturbed,
        "digest_resumed": resumed,
        "same": undisturbed == resumed,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "kill_resume.json")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = kill_and_resume(Path(folder), chosen.times, chosen.seed)
    chosen.out.parent.mkdir(exist_ok=True)
    chosen.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    sys.exit(not report["same"])
