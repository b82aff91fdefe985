"""`bitplan explore` in a process of its own, for tests and benchmarks, and what its page shows."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ADDRESS = re.compile(r"at (http://127\.0\.0\.1:\d+/\?token=\S+)")
ROOT = Path(__file__).parents[1]


@contextmanager
def served(profile: Path, *options: str) -> Iterator[str]:
    """The page's address; it ends as by Ctrl-C. Raises RuntimeError where there is no address, or no clean end."""
    command = [sys.executable, "-m", "bitplan", "explore", str(profile), *options]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        found = ADDRESS.search(process.stdout.readline())
        if found is None:
            raise RuntimeError(process.communicate()[1])
        yield found[1]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        if process.returncode or err or not out.endswith("stopped\n"):
            raise RuntimeError(f"it ended with {process.returncode}: {out}{err}")
    finally:
        process.kill()
        process.communicate()


def opened(browser: Any, address: str, wrong: list[str] | None = None) -> Any:
    """The page, once the plan asked for at first is shown. wrong: takes its errors, and requests to anywhere else."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    if wrong is not None:
        here = address.partition("?")[0]
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if "Content Security" in said.text else None)
        page.on("request", lambda asked: asked.url.startswith((here, "data:", "blob:")) or wrong.append(asked.url))
    page.goto(address)
    page.wait_for_selector("body[data-shown]", state="attached")
    return page


def shown(page: Any, act: Any) -> None:
    """Do something, and wait until a later answer is shown."""
    before = int(page.get_attribute("body", "data-shown"))
    act()
    for _ in range(200):
        if int(page.get_attribute("body", "data-shown")) > before and not page.evaluate("live.pending || live.next"):
            return
        page.wait_for_timeout(50)
    raise RuntimeError("nothing else was shown within 10 s")
