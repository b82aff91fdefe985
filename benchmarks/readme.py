"""Takes over what `make demo` measured: its report, and README's table and picture of some of its variants.

    make demo && python -m benchmarks.readme demo

Writes benchmarks/results/demo.json, docs/images/demo.png and the table between the marks in README.md. Without a folder
only the table is written, from benchmarks/results/demo.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.published_plans import put
from PIL import Image

from bitplan.planner.texts import table
from bitplan.planner.units import show_bytes, show_ratio

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
REPORT = ROOT / "benchmarks/results/demo.json"
PICTURE = ROOT / "docs/images/demo.png"
VARIANTS = {
    "full precision": "full precision",
    "kept-w4": "4 bits; input, output and time layers kept",
    "both-same-bytes": "a plan of the same bytes",
    "both-half-bytes": "a plan of half the bytes",
}


def rows(report: Mapping[str, Any]) -> str:
    """Returns the table of README. report: what `bitplan evaluate` writes as report.json."""
    results = {result["name"]: result for result in report["results"]}
    return table([row(label, results[name], results["full precision"]) for name, label in VARIANTS.items()])


def row(label: str, result: Mapping[str, Any], full: Mapping[str, Any]) -> dict[str, str]:
    """Returns the cells of one variant. full: the result of full precision."""
    size = result["bytes"]["measured"]
    losses = {name: f"{loss['measured']:.2g}" for name, loss in result["losses"].items()}
    time = next((t for t in result["denoiser_ms"] if t["conditions"] == 1), None)
    return {
        "`scenes`, 48 held-out prompts": label,
        "weights": f"{show_bytes(size)} ({size / full['bytes']['measured']:.1%})",
        "noise (`nsr`)": losses["nsr"],
        "1 - SSIM (`dssim`)": losses["dssim"],
        "embedding (`embed_drift`)": losses["embed_drift"],
        "time, one prompt": show_ratio(time["measured"], time["full_precision"]) if time else "1.00x",
        "right scenes": f"{result['scene_accuracy']:.1%}",
    }


def picture(sheet: Image.Image, names: list[str]) -> Image.Image:
    """Returns the rows of VARIANTS of the grid of images. names: those of all rows."""
    height = sheet.height // len(names)
    chosen = Image.new("RGB", (sheet.width, height * len(VARIANTS)), "white")
    for place, name in enumerate(VARIANTS):
        top = names.index(name) * height
        chosen.paste(sheet.crop((0, top, sheet.width, top + height)), (0, place * height))
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="the folder that `make demo` wrote")
    folder = parser.parse_args().folder
    if folder:
        shutil.copyfile(folder / "report.json", REPORT)
        names = [result["name"] for result in json.loads(REPORT.read_text("utf-8"))["results"]]
        with Image.open(folder / "images.png") as sheet:
            picture(sheet, names).quantize(128).save(PICTURE, optimize=True)
    text = README.read_text("utf-8")
    README.write_text(put(text, "demo", rows(json.loads(REPORT.read_text("utf-8")))), "utf-8")


if __name__ == "__main__":
    main()
