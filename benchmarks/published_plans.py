"""Makes the plans that come with BitPlan again: for `scenes`, and for SDXL-Turbo from public measurements.

    python -m benchmarks.published_plans scenes.profile
    python -m benchmarks.published_plans --mixdq FOLDER

The profile is made by `bitplan profile scenes --out scenes.profile`. Its sweep is written to plans/published/scenes,
with pictures, losses on held-out prompts, and report.md; the same command resumes an interrupted one.

FOLDER holds MixDQ's measurements and plans (see `benchmarks.mixdq`). For each published plan `bitplan.solve` finds the
smallest noise power at no more bytes and no more SSIM loss, with every layer at 2, 4 or 8 bits or not quantized. The
plan files are written to plans/published/sdxl-turbo; their layers are checked against SDXL's UNet, built from its
configuration alone. The figures of both are written to benchmarks/results/published_plans.json and to the tables in
docs/published-plans.md.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.mixdq import PLANS, figures, problem_of, published
from tabulate import tabulate

import bitplan
from bitplan.planner.choice.evidence import read_evidence
from bitplan.planner.choice.published import ROOT
from bitplan.planner.costs.machine import about_machine
from bitplan.planner.outlines.examine import examine
from bitplan.planner.profiles.profile import open_profile
from bitplan.planner.views.sweep import name_of
from bitplan.planner.views.view import View, measured_text
from bitplan.plans.plan import Plan, save_plan
from bitplan.solvers.certify import exact_total
from bitplan.solvers.problem import plain

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "published_plans.json"
DOCS = HERE.parent / "docs" / "published-plans.md"
CONFIG = HERE / "published" / "sdxl-base-unet.json"  # SDXL-Turbo's UNet has the layers of SDXL's
KEPT = ("name", "status", "limit", "totals", "errors", "measured")  # of each variant, in the results
LOSSES = ("nsr", "dssim", "embed_drift")  # in the document; `clip_drop` is in report.md
SCENES: dict[str, Any] = {"stop": "50%", "points": 14, "images": 8}


def publish_scenes(profile: Path, out: Path) -> dict[str, Any]:
    """Writes the sweep of `scenes` into the folder and returns its rows."""
    view = bitplan.sweep(profile, out, **SCENES)
    (out / "report.md").write_text(report_of(view), "utf-8")
    results = {one.picks: one for one in (*view.uniform, *view.points, view.full) if one.measured is not None}
    rows = [{key: value for key, value in asdict(one).items() if key in KEPT} for one in results.values()]
    return {"prompts": view.about["measured on"], "rows": rows, "machine": view.about["machine"]}


def report_of(view: View) -> str:
    about, painting = view.about, view.about["painting"]
    return (
        f"# Plans for `{view.model['name']}`\n\n"
        "Made by `python -m benchmarks.published_plans`. Losses against full precision, ± standard error: predicted by "
        "the\nprofile, as the sum over layers, and measured on "
        f"{about['measured on']} held-out prompts, noise of seeds {painting['seed']} and on, with the\n"
        "kernels that really run. `w8a8` and the like take one scheme everywhere.\n\n"
        f"{measured_text(view)}\n"
    )


def publish_turbo(folder: Path, out: Path) -> dict[str, Any]:
    """Writes plan files at the bits of each of the authors' plans and returns the figures of both."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    outline = examine(str(CONFIG))
    rows = {}
    with tempfile.TemporaryDirectory() as temporary:
        profile = Path(temporary) / "mixdq.profile"
        bitplan.import_profile("mixdq", folder, profile)
        with open_profile(profile) as store:
            problem = problem_of(read_evidence(store))
        for name in PLANS:
            theirs = published(problem, folder / f"final_weight_{name}.yaml")
            limits = {column: plain(exact_total(problem, column, theirs.picks)) for column in ("bytes", "dssim")}
            plan = bitplan.solve(profile, Path(temporary) / "p.yaml", memory=f"{limits['bytes']}B", objective="nsr",
                                 caps={"dssim": repr(limits["dssim"])})  # fmt: skip
            assert bitplan.verify(plan, profile).failures == ()
            save_plan(addressed(plan, outline), out / f"{name_of('bytes', limits['bytes'])}.plan.yaml")
            rows[name] = {"authors": figures(problem, theirs), "planner": figures_of(plan)}
    return rows


def addressed(plan: Plan, outline: Any) -> Plan:
    """Returns the plan as one of SDXL-Turbo's pipeline. Raises AssertionError where its layers are not that UNet's."""
    assert set(plan.schemes) == {layer.address for layer in outline.graph.layers}
    model = dict(plan.model) | {"name": "stabilityai/sdxl-turbo", "architecture": outline.architecture}
    calibration = {key: value for key, value in plan.calibration.items() if key != "prompts_sha256"}
    return replace(plan, model=model, calibration=calibration)


def figures_of(plan: Plan) -> dict[str, Any]:
    """Returns the plan's figures and the number of layers that it keeps."""
    total = plan.predictions["total"]
    full = sum(block["bytes"] for block in plan.predictions["full"].values())  # 16 bits a weight
    kept = sum(scheme == "keep" for scheme in plan.schemes.values())
    return {"bits": 16 * total["bytes"] / full, "nsr": total["nsr"], "dssim": total["dssim"], "kept layers": kept}


def turbo_table(rows: dict[str, Any]) -> str:
    """Returns a table with one row for each budget and plan."""
    lines = [
        {"plan": name, "by": by, "mean bits": f"{its['bits']:.4f}", "layers kept": str(its.get("kept layers", 0)),
         "noise power": f"{its['nsr']:.4e}", "SSIM loss": f"{its['dssim']:.4f}",
         "times less noise": f"{row['authors']['nsr'] / its['nsr']:.2f}"}
        for name, row in rows.items() for by, its in row.items()
    ]  # fmt: skip
    return str(tabulate(lines, headers="keys", tablefmt="github", disable_numparse=True))


def scenes_table(rows: list[dict[str, Any]]) -> str:
    """Returns a table of bytes, predicted and measured losses of the plans and of uniform plans."""
    whole = max(row["totals"]["bytes"] for row in rows)
    lines = []
    for row in sorted(rows, key=lambda row: -row["totals"]["bytes"]):
        size, limit = row["totals"]["bytes"], row["limit"]
        named = f"`scenes@{math.ceil(1000 * limit / whole) / 10:g}%`" if limit else row["name"]
        line = {"plan": named, "bytes": f"{size:,}", "of full": f"{size / whole:.1%}"}
        for name in LOSSES:
            mean, stderr = row["measured"][name]
            figures_of = f"{row['totals'][name]:.2g} / {mean:.2g} ± {stderr:.1g}"
            line[f"{name}, predicted / measured"] = figures_of if mean else "0"
        lines.append(line)
    return str(tabulate(lines, headers="keys", tablefmt="github", disable_numparse=True))


def put(text: str, name: str, table: str) -> str:
    """Returns the document with the table between its marks."""
    start, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
    before, rest = text.split(start)
    return before + start + table + end + rest.split(end)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("profile", type=Path, nargs="?", help="of scenes")
    parser.add_argument("--mixdq", type=Path, help="the folder of MixDQ's files")
    args = parser.parse_args()
    results = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    if args.profile:
        results["scenes"] = publish_scenes(args.profile, ROOT / "scenes")
    if args.mixdq:
        results["sdxl-turbo"] = publish_turbo(args.mixdq, ROOT / "sdxl-turbo")
    RESULTS.write_text(json.dumps(results | {"about": about_machine()}, indent=1) + "\n", "utf-8")
    text = DOCS.read_text("utf-8")
    if "scenes" in results:
        text = put(text, "scenes", scenes_table(results["scenes"]["rows"]))
    if "sdxl-turbo" in results:
        text = put(text, "sdxl-turbo", turbo_table(results["sdxl-turbo"]))
    DOCS.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
