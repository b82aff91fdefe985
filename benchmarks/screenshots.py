"""The pictures of pages in README and docs: of the report on the published plans for `scenes`, and of the explorer.

    python -m benchmarks.screenshots scenes.profile

Writes docs/images/report.png and docs/images/explore.png with a headless Chromium.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.browser import browser, until
from tests.served import opened, served, shown

import bitplan
from bitplan.planner.choice.published import ROOT

OUT = Path(__file__).parents[1] / "docs" / "images"
SIZE = {"width": 1280, "height": 800}


def report(chromium: object, out: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = bitplan.report([ROOT / "scenes"], Path(folder) / "report.html")
        page = chromium.new_page(viewport=SIZE)  # type: ignore[attr-defined]
        page.goto(file.as_uri())
        until(page, "document.querySelector('#chart .main-svg') !== null")
        page.screenshot(path=out)
        page.close()


def explore(chromium: object, profile: Path, out: Path) -> None:
    with tempfile.TemporaryDirectory() as folder, served(profile, "--plans", folder) as address:
        page = opened(chromium, address)
        shown(page, lambda: page.locator("#slider").press("ArrowRight"))
        page.click("#paint")
        page.wait_for_selector("#pictures img.plan", timeout=120_000)
        page.evaluate("document.activeElement.blur()")
        page.wait_for_timeout(300)
        page.screenshot(path=out)
        page.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("profile", type=Path, help="of `scenes`, by default settings")
    profile = parser.parse_args().profile
    OUT.mkdir(exist_ok=True)
    with browser() as chromium:
        report(chromium, OUT / "report.png")
        explore(chromium, profile, OUT / "explore.png")


if __name__ == "__main__":
    main()
