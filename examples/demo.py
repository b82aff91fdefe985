"""The demo on the embedded pipeline, as `make demo` runs it: profile, solve, apply with real kernels, compare.

It evaluates on held-out prompts: full precision; uniform 4-bit weights; the same with the input, output and time layers
kept in full precision, the best practice; and the plans by quality, and by quality and alignment, at the bytes of the
best practice and at half of them. It also sweeps memory and writes a report page. All files are in the folder `--out`;
an unfinished profile there is resumed.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import bitplan  # noqa: E402
from bitplan.planner.evaluation.report import summary  # noqa: E402

SCHEMES = ("w8a8", "w5ma8", "w4ma8", "w3ma8", "w2ma8")


KEPT = {"role:in": "keep", "role:out": "keep", "role:time": "keep"}


def make_plans(profile: Path, out: Path) -> list[Path]:
    """Writes uniform plans, and the best plans at the bytes of the second and at half of them. Returns the files."""
    files = [out / f"{name}.plan.yaml" for name in ("uniform-w4", "kept-w4")]
    bitplan.solve(profile, files[0], uniform="w4ma8")
    kept = bitplan.solve(profile, files[1], uniform="w4ma8", pins=KEPT).predictions["total"]["bytes"]
    for name, size in (("same", kept), ("half", kept // 2)):
        for objective in ("quality", "both"):
            files.append(out / f"{objective}-{name}-bytes.plan.yaml")
            bitplan.solve(profile, files[-1], memory=str(size), objective=objective)
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("demo"))
    parser.add_argument("--prompts", type=int, default=48, help="held-out prompts to evaluate on")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    profile = bitplan.profile("scenes", args.out / "scenes.profile", schemes=SCHEMES)
    print(f"profiled after {time.monotonic() - start:.0f} s", flush=True)
    plans = make_plans(profile, args.out)
    evaluation = bitplan.evaluate(plans, "scenes", args.out, count=args.prompts, blocks=False)
    caption = "a small red circle above a large blue square on a yellow background"
    bitplan.paint(plans[-1], "scenes", [caption], args.out / "painted.png")
    bitplan.sweep(profile, args.out / "frontier", points=24, start="6.6%", stop="30%", images=8, paint=8)
    bitplan.report([args.out / "frontier"], args.out / "report.html")
    print("\n" + summary(evaluation.to_json()) + "\n")
    print(f"{args.out}/: scenes.profile, {len(plans)} plans, report.md, report.json, images.png, painted.png")
    print(f"{args.out}/report.html: the frontier, its plans and their pictures; open it in a browser")
    print(f"done in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
