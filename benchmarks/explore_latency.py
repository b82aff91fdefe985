"""Claim: `bitplan explore` shows the plan of a dragged budget in under 200 ms, for `scenes` and for 794 layers.

    python -m benchmarks.explore_latency [--scenes X.profile]

In a headless Chromium the memory slider is dragged to 60 random positions, each after the previous plan is shown.
Times are milliseconds from the input event to the end of the frame that shows the new plan, with memory alone and with
a second limit on time, half-way between the smallest time and that of the plan at a quarter of the memory. Positions
without a plan are counted separately. The large profile has SDXL's layer shapes and synthetic losses
(`benchmarks.instances`). --scenes: a profile of `scenes` [a new one]. Writes benchmarks/results/explore_latency.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.instances import SCHEMES_12, Shape, problem_of, sdxl_shapes
from tabulate import tabulate
from tests.browser import browser
from tests.served import opened, served, shown

import bitplan
from bitplan.planner.costs.machine import about_machine
from bitplan.planner.graph.layers import Layer, LayerCall, LayerGraph, to_json
from bitplan.planner.profiles.profile import Cost, Profile
from bitplan.sensitivity.table import Measurement

COUNT, SEED = 60, 0
FAMILIES = {"nsr": "quality", "embed_drift": "alignment"}
HEADER = {
    "model": {"name": "sdxl-shapes", "pipeline": "StableDiffusionXLPipeline", "components": ["unet"],
              "fingerprint": "0" * 64, "architecture": "0" * 64, "dtype": "float16"},
    "settings": {"prompts": ["a photo"], "generation": {"steps": 20, "guidance": 5.0, "seed": 0}},
}  # fmt: skip
ROLES = (("attn2.", "cross-attention"), ("attn1.", "self-attention"), ("ff.", "feed-forward"), ("time_", "time"),
         ("add_embedding", "condition"), ("proj_", "feed-forward"))  # fmt: skip
DRAG = """async (place) => {
  const shown = new Promise((done) => {
    const watch = new MutationObserver(() => { watch.disconnect(); done(); });
    watch.observe(document.body, { attributeFilter: ["data-shown"] });
  });
  const start = performance.now();
  slider.value = String(place);
  slider.dispatchEvent(new Event("input", { bubbles: true }));
  await shown;
  const plan = !document.body.classList.contains("stale");
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  return [performance.now() - start, plan];
}"""
BOUND = """() => {
  const least = live.start.ranges.ms[0];
  const range = document.getElementById("limit-ms");
  range.value = String(ladder(live.start.ranges.ms).placeOf((least + chosen.variant.totals.ms) / 2));
  range.dispatchEvent(new Event("input"));
  range.dispatchEvent(new Event("change"));
}"""


def large_profile(path: Path) -> Path:
    """Writes a profile with SDXL's shapes, and costs and losses of the solver's benchmarks with standard errors of a
    tenth.
    """
    shapes = sdxl_shapes()
    problem = problem_of(shapes, SCHEMES_12, 1, SEED)
    columns = {name: values.reshape(len(shapes), -1) for name, values in problem.columns.items()}
    names = {"nsr": columns["quality"], "embed_drift": columns["alignment"]}
    with Profile.create(path, HEADER) as profile:
        profile.write_graph(to_json(_graph(shapes)), SCHEMES_12)
        for i, shape in enumerate(shapes):
            pairs = list(enumerate(SCHEMES_12))
            layer = f"unet.{shape.name}"
            profile.write_costs(
                Cost(layer, s, int(columns["bytes"][i, k]), float(columns["ms"][i, k]), "none", False) for k, s in pairs
            )
            rows = [
                Measurement(layer, s, metric, float(values[i, k]), float(values[i, k]) / 10, 8)
                for k, s in pairs if s != "keep" for metric, values in names.items()
            ]  # fmt: skip
            profile.write_measurements(rows, FAMILIES)
    return path


def _graph(shapes: tuple[Shape, ...]) -> LayerGraph:
    layers, read = [], dict[int, list[str]]()
    for shape in shapes:
        kind = "conv2d" if len(shape.weight) == 4 else "linear"
        call = LayerCall((1, shape.weight[1]), (1, shape.weight[0]), shape.macs, 20)
        role = next((role for part, role in ROLES if part in shape.name), "convolution")
        role = {"conv_in": "in", "conv_out": "out"}.get(shape.name, role)
        address = f"unet.{shape.name}"
        layers.append(Layer(address, (), kind, shape.weight, True, prod(shape.weight), None, (call,), role))
        read.setdefault(shape.input, []).append(address)
    shared = tuple(tuple(names) for names in read.values() if len(names) > 1)
    return LayerGraph(tuple(layers), (), shared, (), ())


def dragged(page: Any, places: list[int]) -> dict[str, Any]:
    """Summarises the milliseconds of all positions."""
    results = [page.evaluate(DRAG, place) for place in places]
    plans = [ms for ms, plan in results if plan]
    none = [ms for ms, plan in results if not plan]
    return {
        "plans": len(plans), "median_ms": float(np.median(plans)), "p95_ms": float(np.percentile(plans, 95)),
        "most_ms": max(plans), "without_a_plan": len(none), "their_median_ms": float(np.median(none)) if none else None,
        "all_ms": plans,
    }  # fmt: skip


def measured(opened_browser: Any, name: str, profile: Path) -> list[dict[str, Any]]:
    """Measures with one budget and with two."""
    places = np.random.default_rng(SEED).integers(0, 1000, COUNT).tolist()
    rows = []
    with served(profile) as address:
        page = opened(opened_browser, address)
        layers = page.locator("#map .cell").count()
        for budgets in (1, 2):
            if budgets == 2:
                shown(page, lambda: page.fill("#memory", "25%") or page.press("#memory", "Enter"))
                shown(page, lambda: page.check("#bound-ms"))
                shown(page, lambda: page.evaluate(BOUND))
            rows.append({"profile": name, "layers": layers, "budgets": budgets, **dragged(page, places)})
        page.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, browser() as program:
        scenes = args.scenes or bitplan.profile("scenes", Path(folder) / "scenes.profile")
        rows = measured(program, "scenes", scenes)
        rows += measured(program, "SDXL's shapes", large_profile(Path(folder) / "sdxl.profile"))
        about = about_machine() | {"chromium": program.version, "seed": SEED}
    out = Path(__file__).parent / "results" / "explore_latency.json"
    out.write_text(json.dumps({"machine": about, "rows": rows}, indent=1) + "\n")
    print(tabulate([{k: v for k, v in row.items() if k != "all_ms"} for row in rows], headers="keys"))


if __name__ == "__main__":
    main()
