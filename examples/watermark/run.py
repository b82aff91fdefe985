"""Plans with and without a cap on the watermark's noise, and what is read off the pictures that they make.

    python examples/watermark/run.py --out mark/

Fuses the adapter into `scenes`, profiles the marked pipeline with the metric `mark`, solves at three budgets with and
without `--cap mark=`, applies every plan and reads the marks of pictures of held-out prompts. Ends with a table.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from tabulate import tabulate
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))  # run as a file, the example is in no package that Python knows

import planner
from examples.watermark.errors import cap_for, chance, error_rate, needed
from examples.watermark.mark import BITS, KEY, Key, margins_of
from planner.prompts import built_in_prompts, held_out_prompts
from planner.scenes import CLIP_FOLDER, PIPELINE_FOLDER
from plans.plan import Plan

ADAPTER = Path(__file__).parent / "adapter"
METRIC = "examples.watermark.mark:MARK"
STEPS, GUIDANCE = 8, 2.5
BUDGETS = ("7.5%", "8%", "9%")  # of full precision's bytes; all layers at 2 bits take 6.5 %
RATE = 0.05  # the bit error rate that the cap is made for
SIGNIFICANCE = 1e-3  # chance at which a picture counts as marked
WRONG = Key(patterns=KEY.patterns + 1, message=KEY.message)


@dataclass(frozen=True)
class Reading:
    """What was read off some pictures, and what changed against those of the marked pipeline in full precision.

    noise: power on a bit; drop: mean margin lost; bias: share of the noise's power that is the same for all pictures;
    kurtosis: of the noise without that, 3 for a Gaussian; errors: share of wrong bits over all pictures; found: share
    of pictures of which the mark was found; agreeing, p: bits of the mean statistics that agree with the message, and
    the chance of so many.
    """

    noise: float
    drop: float
    bias: float
    kurtosis: float
    errors: float
    found: float
    agreeing: int
    p: float


def plain_pipeline() -> Any:
    """`scenes` without a mark."""
    pipe = DiffusionPipeline.from_pretrained(PIPELINE_FOLDER, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def marked_pipeline(folder: Path) -> Any:
    """`scenes` with the adapter in its weights, saved to the folder as any other pipeline."""
    pipe = plain_pipeline()
    pipe.load_lora_weights(ADAPTER)
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    pipe.save_pretrained(folder)
    return pipe


def paint(pipe: Any, prompts: Sequence[str], seed: int) -> Tensor:
    """(P, 3, 64, 64) in 0..1; prompt i draws its noise from seed + i."""
    noise = [torch.Generator().manual_seed(seed + i) for i in range(len(prompts))]
    parts = [slice(at, at + 16) for at in range(0, len(prompts), 16)]
    return torch.cat([
        pipe(list(prompts[part]), num_inference_steps=STEPS, guidance_scale=GUIDANCE, generator=noise[part],
             output_type="pt").images
        for part in parts
    ])  # fmt: skip


def read(images: Tensor, full: Tensor, key: Key = KEY) -> Reading:
    """What pictures say; full: those of the marked pipeline in full precision, of the same prompts."""
    margins = margins_of(images, key)
    change = margins - margins_of(full, key)
    noise, own = float(change.square().mean()), change - change.mean(0)
    spread = own.square().sum(0) / max(len(images) - 1, 1)  # of one picture, by bit
    shared = change.mean(0).square() - spread / len(images)
    right = (margins > 0).sum(1)
    agreeing = int((margins.mean(0) > 0).sum())
    return Reading(
        noise=noise,
        drop=-float(change.mean()),
        bias=float(shared.mean()) / noise if noise else 0.0,
        kurtosis=float((own / spread.sqrt()).pow(4).mean()) if noise else 3.0,
        errors=1 - float(right.double().mean()) / BITS,
        found=float((right >= needed(BITS, SIGNIFICANCE)).double().mean()),
        agreeing=agreeing,
        p=chance(agreeing, BITS),
    )


def plan_rows(profile: Path, cap: float, margins: Sequence[float], out: Path) -> list[tuple[dict[str, Any], Plan]]:
    """At each budget a plan without and one with the cap, with what is predicted of it."""
    rows = []
    for budget in BUDGETS:
        for name, caps in (("no cap", {}), (f"mark <= {cap:.3g}", {"mark": repr(cap)})):
            file = out / f"{'capped' if caps else 'free'}-{budget.rstrip('%')}.plan.yaml"
            plan = planner.solve(profile, file, memory=budget, caps=caps)
            noise = planner.predict(plan, profile)["mark"]
            row = {"budget": budget, "cap": name, "bytes": plan.predictions["total"]["bytes"],
                   "predicted": {"sum": noise.added, "joint": noise.joint, "stderr": noise.stderr,
                                 "errors": error_rate(margins, noise.joint)}}  # fmt: skip
            rows.append((row, plan))
    return rows


def story(out: Path, count: int = 16, held_out: int = 48, rate: float = RATE) -> dict[str, Any]:
    """The whole example; what it found, with plans and the profile in the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    pipe, folder, profile = marked_pipeline(out / "marked"), out / "marked", out / "marked.profile"
    prompts = built_in_prompts(True, count)
    planner.profile(
        str(folder), profile, prompts=prompts, steps=STEPS, guidance=GUIDANCE, clip=str(CLIP_FOLDER), metrics=(METRIC,)
    )
    margins = margins_of(paint(pipe, prompts, seed=0)).flatten().tolist()
    cap = cap_for(margins, rate)
    held = held_out_prompts(held_out)
    full = paint(pipe, held, seed=1000)
    readings = {
        "marked, full precision": read(full, full),
        "marked, another key": read(full, full, WRONG),
        "unmarked": read(paint(plain_pipeline(), held, seed=1000), full),
    }
    rows = plan_rows(profile, cap, margins, out)
    for row, plan in rows:
        planner.apply(pipe, plan)
        row["measured"] = asdict(read(paint(pipe, held, seed=1000), full))
        planner.restore(pipe)
    return {
        "bits": BITS, "rate": rate, "cap": cap, "significance": SIGNIFICANCE, "prompts": count, "held_out": held_out,
        "controls": {name: asdict(reading) for name, reading in readings.items()}, "plans": [row for row, _ in rows],
    }  # fmt: skip


def table(found: dict[str, Any]) -> str:
    """For people."""
    rows = [(name, "", "", *_shown(reading)) for name, reading in found["controls"].items()]
    for row in found["plans"]:
        name, predicted = f"{row['budget']}, {row['cap']}", row["predicted"]
        rows.append((name, f"{row['bytes']:,.0f}", f"{predicted['errors']:.1%}", *_shown(row["measured"])))
    headers = ("pictures of", "bytes", "errors predicted", "measured", "marks found", "bits agreeing", "chance")
    return str(tabulate(rows, headers, tablefmt="github"))


def _shown(reading: dict[str, Any]) -> tuple[str, ...]:
    errors, found, p = f"{reading['errors']:.1%}", f"{reading['found']:.0%}", f"{reading['p']:.2g}"
    return errors, found, f"{reading['agreeing']} of {BITS}", p


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("mark"))
    args = parser.parse_args()
    found = story(args.out)
    (args.out / "found.json").write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))


if __name__ == "__main__":
    main()
