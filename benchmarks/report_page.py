"""Claim: the page of 40 plans with 8 pictures each is under 15 MB and opens in under 2 s.

    python -m benchmarks.report_page RUN [RUN ...]

Makes the page of each RUN, a folder of `bitplan sweep`, and opens it from disk in a headless Chromium 7 times, each
with a new browser profile. Reports milliseconds from navigation to the first frame after numbers, pictures and map are
drawn, and after the chart is drawn; requests besides the file; and milliseconds until a step of the slider is shown.
The first RUN with pictures is measured again with 512 px grainy pictures, as larger models have. Writes
benchmarks/results/report_page.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import plotly
from PIL import Image
from tabulate import tabulate
from tests.browser import browser, until

from bitplan.planner.costs.machine import about_machine
from bitplan.planner.page.html import write_report
from bitplan.planner.views.view import VIEW, Variant, View, read_view, write_view

SHOWN = "performance.getEntriesByName('shown').length > 0"
STEP = """() => new Promise((done) => {
  const slider = document.getElementById("slider");
  const start = performance.now();
  slider.value = String((Number(slider.value) + 1) % (Number(slider.max) + 1));
  slider.dispatchEvent(new Event("input"));
  requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
})"""


def enlarged(run: Path, out: Path, side: int) -> Path:
    """Returns the run with enlarged grainy pictures, each in its own file; the grain depends on the picture's index."""
    random = np.random.default_rng(0)
    view = read_view(run / VIEW)
    grain = [random.normal(0, 6, (side, side, 3)) for _ in view.conditions]

    def paint(variant: Variant) -> Variant:
        paths = []
        for i, path in enumerate(variant.pictures):
            with Image.open(run / path) as picture:
                pixels = np.asarray(picture.convert("RGB").resize((side, side), Image.Resampling.BICUBIC), float)
            paths.append(f"{variant.name}-{i}.png")
            Image.fromarray((pixels + grain[i]).clip(0, 255).astype(np.uint8)).save(out / paths[-1])
        return replace(variant, pictures=tuple(paths))

    points, uniform = (tuple(map(paint, some)) for some in (view.points, view.uniform))
    write_view(replace(view, points=points, uniform=uniform, full=paint(view.full)), out / VIEW)
    return out


def pictures_of(view: View) -> int:
    return sum(len(variant.pictures) for variant in (view.full, *view.points))


def measured(opened: Any, run: Path, name: str, loads: int) -> dict[str, Any]:
    """Returns one row of the table."""
    view = read_view(run / VIEW)
    row: dict[str, Any] = {"run": name, "layers": len(view.cells), "pictures": pictures_of(view),
                           "plans": sum(bool(point.picks) for point in view.points)}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        start = time.perf_counter()
        write_report([run], page)
        row |= {"written_s": time.perf_counter() - start, "bytes": page.stat().st_size}
        times, read, steps, requests = [], [], [], 0
        for _ in range(loads):
            context = opened.new_context(viewport={"width": 1280, "height": 800})
            tab = context.new_page()
            urls: list[str] = []
            tab.on("request", lambda request, urls=urls: urls.append(request.url))
            tab.goto(page.as_uri())
            until(tab, SHOWN)
            times.append(tab.evaluate("performance.getEntriesByName('shown')[0].startTime"))
            read.append(tab.evaluate("performance.getEntriesByName('read')[0].startTime"))
            steps += [tab.evaluate(STEP) for _ in range(5)]
            requests += sum(not url.startswith("data:") for url in urls) - 1
            context.close()
    return row | {"shown_ms": times, "median_ms": statistics.median(times),
                  "readable_ms": statistics.median(read), "requests": requests,
                  "step_ms": statistics.median(steps)}  # fmt: skip


def rows_of(runs: Sequence[Path], loads: int, side: int) -> list[dict[str, Any]]:
    with browser() as opened, tempfile.TemporaryDirectory() as folder:
        rows = [measured(opened, run, run.resolve().name, loads) for run in runs]
        painted = [run for run in runs if pictures_of(read_view(run / VIEW))]
        if painted:
            large = enlarged(painted[0], Path(folder), side)
            rows.append(measured(opened, large, f"{painted[0].resolve().name}, pictures of {side} px", loads))
        about = {"chromium": opened.version, "plotly": plotly.__version__}
    return [row | about for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--loads", type=int, default=7)
    parser.add_argument("--side", type=int, default=512)
    args = parser.parse_args()
    results = {"machine": about_machine(), "rows": rows_of(args.runs, args.loads, args.side)}
    out = Path(__file__).parent / "results" / "report_page.json"
    out.write_text(json.dumps(results, indent=1) + "\n")
    print(
        tabulate([{name: row[name] for name in row if name != "shown_ms"} for row in results["rows"]], headers="keys")
    )


if __name__ == "__main__":
    main()
