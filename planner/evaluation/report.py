"""Writes reports of an evaluation: Markdown, JSON, and a grid of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitplan.planner.errors import UserError
from bitplan.planner.evaluation.plans import BlockRow, PlanResult
from bitplan.planner.files import make_folder, write_json, write_text
from bitplan.planner.pipelines.outputs import save_grid
from bitplan.planner.texts import table
from bitplan.planner.units import TIMES, show_bytes, show_ratio, time_cell
from bitplan.plans.plan import Plan
from bitplan.sensitivity.metrics import METRICS

GRID_COLUMNS = 8


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The results of an evaluation.

    Attributes:
        results: full precision, then the plans.
        plans: name -> plan.
        blocks: name -> rows of its blocks.
        about: how it was measured.
    """

    results: Sequence[PlanResult]
    plans: Mapping[str, Plan]
    blocks: Mapping[str, Sequence[BlockRow]]
    about: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """What `json.dumps` takes, the content of `report.json`: no images."""
        return {
            "about": dict(self.about),
            "results": [
                {
                    "name": r.name,
                    "bytes": {"predicted": _predicted(self, r).get("bytes", r.bytes), "measured": r.bytes},
                    "denoiser_ms": [time.to_json() for time in r.times],
                    "losses": {
                        name: {"predicted": _predicted(self, r).get(name), "measured": mean, "stderr": stderr}
                        for name, (mean, stderr) in r.losses.items()
                    },
                    "scene_accuracy": r.accuracy,
                }
                for r in self.results
            ],
            "blocks": {
                name: [
                    {
                        "block": b.block, "layers": b.layers,
                        "predicted": dict(b.predicted), "measured": dict(b.measured),
                    }
                    for b in rows
                ]
                for name, rows in self.blocks.items()
            },
        }  # fmt: skip

    def __str__(self) -> str:
        """The Markdown tables of `report.md`: all variants, then each plan by block."""
        parts = [_variants(self)]
        for name, rows in self.blocks.items():
            parts += [f"\n### {name}, block by block (losses: the plan in this block alone)\n", _blocks(rows)]
        if "int8_products" in self.about:
            parts.insert(1, f"\n{self.about['int8_products']}")
        return "\n".join(parts) + "\n"

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the files that `write_report` writes."""
        return ("report.md", "report.json", *(["images.png"] if self.results[0].kind == "images" else []))


def summary(report: Mapping[str, Any]) -> str:
    """Returns a narrow table of the measured values. report: a result of `Evaluation.to_json`."""
    rows = []
    counts = dict.fromkeys(each["conditions"] for r in report["results"] for each in r["denoiser_ms"])
    for r in report["results"]:
        row = {"variant": r["name"], "bytes": f"{r['bytes']['measured']:,}"}
        ratios = {t["conditions"]: show_ratio(t["measured"], t["full_precision"]) for t in r["denoiser_ms"]}
        row |= {f"denoiser time, {count} at a time": ratios.get(count, "1.00x") for count in counts}
        for name, loss in r["losses"].items():
            spread = f" ± {loss['stderr']:.1g}" if loss["stderr"] else ""
            row[f"{_family(report['about'], name)}: {name}"] = (
                f"{loss['measured']:.4f}{spread}" if loss["measured"] else "0"
            )
        if r["scene_accuracy"] is not None:
            row["scene accuracy"] = f"{r['scene_accuracy']:.1%}"
        rows.append(row)
    return table(rows)


def write_report(evaluation: Evaluation, out: Path) -> None:
    """Writes `report.md`, `report.json` and, for images, `images.png` into the folder `out`; creates it if needed.

    Raises UserError, PathError.
    """
    make_folder(out)
    write_text(str(evaluation), out / "report.md")
    write_json(evaluation.to_json(), out / "report.json")
    if "images.png" in evaluation.files:
        save_grid({r.name: r.outputs[:GRID_COLUMNS] for r in evaluation.results}, out / "images.png")


def check_comparable(plans: Mapping[str, Plan], count: int) -> None:
    """Raises UserError unless the `count` plans have different names and the same layers."""
    if len(plans) < count:
        raise UserError(f"{count} plans have {len(plans)} names, and a report needs different names; rename the files")
    first, *others = plans
    for name in others:
        if odd := set(plans[first].schemes) ^ set(plans[name].schemes):
            raise UserError(f"{first} and {name} plan different layers, such as {min(odd)}; evaluate them one by one")


def _family(about: Mapping[str, Any], metric: str) -> str:
    return str(about.get("families", {}).get(metric) or METRICS[metric].family)


def _predicted(evaluation: Evaluation, result: PlanResult) -> Mapping[str, Any]:
    plan = evaluation.plans.get(result.name)
    return plan.predictions.get("total", {}) if plan else {}


def _pair(predicted: float | None, measured: float, stderr: float | None = None) -> str:
    spread = f" ± {stderr:.2g}" if stderr else ""
    return f"{'–' if predicted is None else f'{predicted:.4f}'} / {measured:.4f}{spread}"


def _variants(evaluation: Evaluation) -> str:
    rows = []
    counts = dict.fromkeys(time.conditions for r in evaluation.results for time in r.times)
    for r in evaluation.results:
        predicted = _predicted(evaluation, r)
        row: dict[str, str] = {"variant": r.name, "bytes, predicted / held": _bytes(predicted, r)}
        times = {time.conditions: time_cell(time.ms, time.full_ms) for time in r.times}
        row |= {f"denoiser {TIMES}, {count} at a time": times.get(count, "1.00x") for count in counts}
        for name, (mean, stderr) in r.losses.items():
            label = f"{_family(evaluation.about, name)}: {name}, predicted / measured"
            row[label] = "0" if r.name not in evaluation.plans else _pair(predicted.get(name), mean, stderr)
        if r.accuracy is not None:
            row["scene accuracy"] = f"{r.accuracy:.1%}"
        rows.append(row)
    return table(rows)


def _bytes(predicted: Mapping[str, Any], result: PlanResult) -> str:
    if "bytes" not in predicted:
        return f"– / {result.bytes:,} ({show_bytes(result.bytes)})"
    return f"{predicted['bytes']:,} / {result.bytes:,} ({show_bytes(result.bytes)})"


def _blocks(rows: Sequence[BlockRow]) -> str:
    lines = []
    for row in rows:
        line: dict[str, str] = {"block": row.block, "layers": str(row.layers)}
        for name, measured in row.measured.items():
            predicted = row.predicted.get(name)
            line[name] = f"{predicted:,} / {measured:,}" if name == "bytes" else _pair(predicted, measured)
        lines.append(line)
    return table(lines)
