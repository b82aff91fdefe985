"""Compares plans with and without a cap on the mark's noise, and decodes the weights that they store.

    python examples/watermark/run.py --out mark/

Marks `scenes`, profiles it, adds the column `mark`, solves at three budgets with and without `--cap mark=`, applies
every plan, decodes the packed weights, and prints a table. The same command resumes an interrupted run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))  # a file that is run directly belongs to no package

from examples.watermark.errors import cap_for, chance, error_rate  # noqa: E402
from examples.watermark.make import make  # noqa: E402
from examples.watermark.mark import (  # noqa: E402
    BITS,
    KEY,
    STRENGTH,
    Key,
    carrier_weights,
    carriers_of,
    count_matching,
    marked_weights,
    message_of,
)
from examples.watermark.noise import METRIC, add_mark, dequantized  # noqa: E402
from tabulate import tabulate  # noqa: E402
from torch import Tensor  # noqa: E402

import bitplan  # noqa: E402
from bitplan.planner.evaluation.plans import scene_accuracy  # noqa: E402
from bitplan.planner.pipelines.conditions import held_out_prompts  # noqa: E402
from bitplan.planner.pipelines.sources import (
    DEFAULTS,
    generate,
    load_pipeline,  # noqa: E402
)
from bitplan.planner.profiles.profile import open_profile  # noqa: E402
from bitplan.planner.scenes import (
    CLIP_FOLDER,  # noqa: E402
    SCENES,
)
from bitplan.plans.plan import Plan  # noqa: E402
from bitplan.sensitivity.metrics import METRICS  # noqa: E402

BUDGETS = ("7.5%", "8%", "9%")  # of full precision's bytes; all layers at 2 bits take 6.5 %
RATE = 0.05  # the bit error rate that the cap allows
SIGNIFICANCE = 1e-6  # largest probability at which weights count as marked
OTHERS = tuple(Key(seed, seed + 1000) for seed in range(100, 124))  # other keys, for mean rates


def measure(folder: str, profile: Path, count: int) -> None:
    """Profiles the marked pipeline and adds the column `mark`."""
    default = DEFAULTS[SCENES]
    bitplan.profile(folder, profile, count=count, checks=0, clip=str(CLIP_FOLDER), steps=default.steps,
                    guidance=default.guidance)  # fmt: skip
    with open_profile(profile) as store:
        complete = METRIC in store.families()
    if not complete:
        add_mark(profile, carrier_weights(load_pipeline(folder).unet))


def decode(weights: Mapping[str, Tensor], hosts: Mapping[str, Tensor]) -> dict[str, Any]:
    """Returns the number of bits that match the key's message, its probability in weights without the mark, and the
    results of other keys, whose marks are absent."""
    right, *others = (
        count_matching(weights, carriers_of(hosts, key), message_of(key.message)) for key in (KEY, *OTHERS)
    )
    return {"agreeing": right, "p": chance(right, BITS), "other keys": summary(others)}


def summary(right: Sequence[int]) -> dict[str, float]:
    """Returns the mean bit error rate of keys, its standard error, and the share of keys that are detected."""
    wrong = [1 - one / BITS for one in right]
    detected = [chance(one, BITS) <= SIGNIFICANCE for one in right]
    return {"errors": fmean(wrong), "stderr": stdev(wrong) / len(wrong) ** 0.5, "found": fmean(detected)}


def decode_applied(pipe: Any, plan: Plan, hosts: Mapping[str, Tensor]) -> dict[str, Any]:
    """Decodes the packed layers of the pipeline with the plan applied."""
    bitplan.apply(pipe, plan, allow_mismatch=True)
    weights = carrier_weights(pipe.unet)
    bitplan.restore(pipe)
    return decode(weights, hosts)


def errors_over_keys(plan: Plan, hosts: Mapping[str, Tensor]) -> dict[str, float]:
    """Measures what the plan's schemes do to marks of other keys and messages in the same model."""
    right = []
    for key in OTHERS:
        carriers, message = carriers_of(hosts, key), message_of(key.message)
        stored = {name: dequantized(weight, plan.schemes[f"unet.{name}"])
                  for name, weight in marked_weights(carriers, message).items()}  # fmt: skip
        right.append(count_matching(stored, carriers, message))
    return summary(right)


def plans_of(profile: Path, cap: float, budget: str, out: Path) -> dict[str, Plan]:
    """Solves one budget without and with a cap on the mark's noise."""
    caps = {"free": {}, "capped": {METRIC: repr(cap)}}
    return {
        name: bitplan.solve(profile, out / f"{name}-{budget.rstrip('%')}.plan.yaml", memory=budget, caps=cap)
        for name, cap in caps.items()
    }


def pictures(pipe: Any, plain: Any, count: int) -> dict[str, Any]:
    """Measures the effect of the mark on pictures of held-out prompts in full precision."""
    prompts = held_out_prompts(count)
    before, after = (generate(one, prompts, DEFAULTS[SCENES]) for one in (plain, pipe))
    return {
        "prompts": count, "dssim": float(METRICS["dssim"].function(before, after).mean()),
        "right": {"unmarked": scene_accuracy(before, prompts), "marked": scene_accuracy(after, prompts)},
    }  # fmt: skip


def run_example(out: Path, count: int = 4, prompts: int = 32) -> dict[str, Any]:
    """Runs the whole example with all files in the folder `out` and returns the results."""
    out.mkdir(parents=True, exist_ok=True)
    plain, pipe, profile = load_pipeline(SCENES), make(out), out / "marked.profile"
    measure(str(out / "marked"), profile, count)
    hosts, cap, rows = carrier_weights(plain.unet), cap_for([STRENGTH], RATE), []
    for budget in BUDGETS:
        for name, plan in plans_of(profile, cap, budget, out).items():
            total = plan.predictions["total"]
            rows.append({
                "budget": budget, "plan": name, "predicted": total,
                "errors predicted": error_rate([STRENGTH], total[METRIC]), "measured": errors_over_keys(plan, hosts),
                "marked": decode_applied(pipe, plan, hosts), "unmarked": decode_applied(plain, plan, hosts),
            })  # fmt: skip
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return {
        "bits": BITS, "strength": STRENGTH, "rate": RATE, "cap": cap, "significance": SIGNIFICANCE, "keys": len(OTHERS),
        "pictures": pictures(pipe, plain, prompts), "full precision": decode(carrier_weights(pipe.unet), hosts),
        "plans": rows,
    }  # fmt: skip


def table(result: dict[str, Any]) -> str:
    """Returns the results as a table."""
    rows = []
    for row in result["plans"]:
        measured, total, read = row["measured"], row["predicted"], (row["marked"], row["unmarked"])
        rows.append((
            f"{row['budget']}, {row['plan']}", f"{total['bytes']:,.0f}", f"{row['errors predicted']:.1%}",
            f"{measured['errors']:.1%} ± {measured['stderr']:.1%}", f"{measured['found']:.0%}",
            *(f"{one['agreeing']} ({one['p']:.1g})" for one in read),
            *(f"{one['other keys']['errors']:.1%}" for one in read[:1]),
            *(f"{total[name]:.3g}" for name in ("nsr", "dssim", "embed_drift")),
        ))  # fmt: skip
    headers = ("plan", "bytes", "errors predicted", "measured", "marks found", "bits agreeing (chance)", "unmarked",
               "errors of other keys", "nsr", "dssim", "embed_drift")  # fmt: skip
    return str(tabulate(rows, headers, tablefmt="github", disable_numparse=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("mark"))
    args = parser.parse_args()
    result = run_example(args.out)
    (args.out / "results.json").write_text(json.dumps(result, indent=1) + "\n")
    print(table(result))


if __name__ == "__main__":
    main()
