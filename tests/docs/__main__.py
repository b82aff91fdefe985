"""Updates the outputs and images of docs/tutorial.md: `python -m tests.docs`."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

from tests.docs.executed import ROOT, rewritten


def main() -> None:
    page = ROOT / "docs/tutorial.md"
    text = page.read_text("utf-8")
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            page.write_text(rewritten(text), "utf-8")
        finally:
            os.chdir(here)
        for name in re.findall(r"!\[.*?\]\(tutorial/(.*?)\)", text):
            image = ROOT / "docs/tutorial" / name
            image.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(Path(folder) / name, image)


if __name__ == "__main__":
    main()
