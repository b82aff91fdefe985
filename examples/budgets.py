"""What the examples of pipelines of one's own have in common: plans at some budgets, predicted beside measured."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate
from torch import Tensor

import bitplan


@dataclass(frozen=True)
class Asked:
    """subject: `package.module:name`; components: to plan; budgets: of full precision's bytes; count, held_out:
    conditions for the profile and for the evaluation; steps: denoiser calls judged by their own output; checks:
    estimates that are measured, too; schemes: to choose from; metrics: measured besides the subject's own; clip: as
    `bitplan.evaluate` has it."""

    subject: str
    components: tuple[str, ...]
    budgets: tuple[str, ...]
    count: int
    held_out: int
    steps: int = 4
    checks: int = 8
    schemes: tuple[str, ...] = ("w8a8", "w6a8", "w4ma8", "w3ma8", "w2ma8")
    metrics: tuple[str, ...] = ()
    clip: str | None = None


def story(asked: Asked, out: Path, look: Callable[[Tensor], Mapping[str, float]]) -> dict[str, Any]:
    """Profile, solve and evaluate, with all files in the folder `out`. look: what the outputs of the held-out
    conditions are worth by themselves, not against full precision's."""
    out.mkdir(parents=True, exist_ok=True)
    profile = bitplan.profile(
        asked.subject, out / "subject.profile", count=asked.count, schemes=asked.schemes, components=asked.components,
        timesteps=asked.steps, checks=asked.checks,
    )  # fmt: skip
    plans = {name: out / f"{name.rstrip('%')}.plan.yaml" for name in asked.budgets}
    joint = {}
    for budget, file in plans.items():
        plan = bitplan.solve(profile, file, memory=budget, objective="quality")
        joint[budget] = {name: found.joint for name, found in bitplan.predict(plan, profile).items()}
    report = bitplan.evaluate(
        list(plans.values()), asked.subject, out / "report", count=asked.held_out, blocks=False,
        metrics=asked.metrics, clip=asked.clip,
    )  # fmt: skip
    rows = []
    for result, budget in zip(report.results, ("full precision", *plans), strict=True):
        plan = report.plans.get(result.name)
        added = plan.predictions["total"] if plan else {}
        losses = {
            name: {
                "added": added.get(name),
                "joint": joint.get(budget, {}).get(name),
                "measured": mean,
                "stderr": error,
            }
            for name, (mean, error) in result.losses.items()
        }
        size = {"predicted": added.get("bytes"), "held": result.bytes}
        rows.append({"budget": budget, "bytes": size, "losses": losses, "figures": dict(look(result.outputs))})
    return {
        "subject": asked.subject, "components": list(asked.components), "conditions": asked.count,
        "held_out": asked.held_out, "layers": len(next(iter(report.plans.values())).schemes), "rows": rows,
    }  # fmt: skip


def table(found: Mapping[str, Any]) -> str:
    """For people."""
    lines = []
    for row in found["rows"]:
        line = {"budget": row["budget"], "bytes": f"{row['bytes']['held']:,}"}
        for name, loss in row["losses"].items():
            told = "–" if loss["joint"] is None else f"{loss['joint']:.3g}"
            line[f"{name}, predicted / measured"] = f"{told} / {loss['measured']:.3g}" + (
                f" ± {loss['stderr']:.1g}" if loss["stderr"] else ""
            )
        lines.append(line | {name: f"{value:.3g}" for name, value in row["figures"].items()})
    return str(tabulate(lines, headers="keys", tablefmt="github", disable_numparse=True))


def run(tell: Callable[[Path], dict[str, Any]], about: str | None, argv: Sequence[str] | None = None) -> None:
    """The command of an example: `--out DIR`, `found.json` in it, and the table."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    found = tell(args.out)
    (args.out / "found.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    print(table(found))
