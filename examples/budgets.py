"""Runs an example of a user's own pipeline: plans at several budgets, with predicted and measured losses."""

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
class ExampleSettings:
    """Settings of an example.

    Attributes:
        subject: `package.module:name`.
        components: the components to plan.
        budgets: shares of full precision's bytes, as `20%`.
        count: number of conditions for the profile.
        held_out: number of conditions for the evaluation.
        steps: number of denoiser calls whose own output is measured.
        checks: number of estimates that are also measured exhaustively.
        schemes: the schemes to choose from.
        metrics: metrics besides the subject's own.
        clip: as in `bitplan.evaluate`.
    """

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


def run_example(settings: ExampleSettings, out: Path, score: Callable[[Tensor], Mapping[str, float]]) -> dict[str, Any]:
    """Profiles, solves and evaluates with all files in the folder `out`.

    score: names and values of absolute figures of the held-out outputs, without full precision as the reference.
    """
    out.mkdir(parents=True, exist_ok=True)
    profile = bitplan.profile(
        settings.subject, out / "subject.profile", count=settings.count, schemes=settings.schemes,
        components=settings.components, timesteps=settings.steps, checks=settings.checks,
    )  # fmt: skip
    plans = {name: out / f"{name.rstrip('%')}.plan.yaml" for name in settings.budgets}
    joint = {}
    for budget, file in plans.items():
        plan = bitplan.solve(profile, file, memory=budget, objective="quality")
        joint[budget] = {name: prediction.joint for name, prediction in bitplan.predict(plan, profile).items()}
    report = bitplan.evaluate(
        list(plans.values()), settings.subject, out / "report", count=settings.held_out, blocks=False,
        metrics=settings.metrics, clip=settings.clip,
    )  # fmt: skip
    rows = []
    for result, budget in zip(report.results, ("full precision", *plans), strict=True):
        plan = report.plans.get(result.name)
        sums = plan.predictions["total"] if plan else {}
        losses = {
            name: {
                "added": sums.get(name),
                "joint": joint.get(budget, {}).get(name),
                "measured": mean,
                "stderr": error,
            }
            for name, (mean, error) in result.losses.items()
        }
        size = {"predicted": sums.get("bytes"), "held": result.bytes}
        rows.append({"budget": budget, "bytes": size, "losses": losses, "figures": dict(score(result.outputs))})
    return {
        "subject": settings.subject, "components": list(settings.components), "conditions": settings.count,
        "held_out": settings.held_out, "layers": len(next(iter(report.plans.values())).schemes), "rows": rows,
    }  # fmt: skip


def table(result: Mapping[str, Any]) -> str:
    """Returns the results as a table."""
    lines = []
    for row in result["rows"]:
        line = {"budget": row["budget"], "bytes": f"{row['bytes']['held']:,}"}
        for name, loss in row["losses"].items():
            predicted = "–" if loss["joint"] is None else f"{loss['joint']:.3g}"
            line[f"{name}, predicted / measured"] = f"{predicted} / {loss['measured']:.3g}" + (
                f" ± {loss['stderr']:.1g}" if loss["stderr"] else ""
            )
        lines.append(line | {name: f"{value:.3g}" for name, value in row["figures"].items()})
    return str(tabulate(lines, headers="keys", tablefmt="github", disable_numparse=True))


def main(run: Callable[[Path], dict[str, Any]], about: str | None, argv: Sequence[str] | None = None) -> None:
    """Runs the command of an example: writes `results.json` into `--out` and prints the table."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    result = run(args.out)
    (args.out / "results.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(table(result))
