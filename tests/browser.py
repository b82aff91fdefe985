"""A headless Chromium for tests and benchmarks of pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")  # fmt: skip
MISSING = "no Chromium at /usr/bin/chromium or in PATH"


def chromium() -> str | None:
    """The program, or None where there is none."""
    usual = Path("/usr/bin/chromium")
    if usual.is_file():
        return str(usual)
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextmanager
def browser() -> Iterator[Any]:
    """playwright's Browser. Raises RuntimeError where there is no Chromium."""
    from playwright.sync_api import sync_playwright

    program = chromium()
    if program is None:
        raise RuntimeError(MISSING)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=list(QUIET))
        try:
            yield opened
        finally:
            opened.close()


def until(page: Any, expression: str, seconds: float = 20.0) -> None:
    """Waits until a JavaScript expression is true; asked from outside, for a page's policy may allow no `eval`, which
    playwright's own waiting needs. Raises TimeoutError."""
    for _ in range(int(seconds / 0.02)):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(20)
    raise TimeoutError(f"not true within {seconds:g} s: {expression}")
