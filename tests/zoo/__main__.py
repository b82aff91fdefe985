"""Writes docs/pipelines.md: `python -m tests.zoo`."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from tests import tiny
from tests.zoo import ZOO
from tests.zoo.page import page_of, row_of
from tests.zoo.story import tell

PAGE = Path("docs/pipelines.md")


def main() -> None:
    torch.set_num_threads(1)
    stories = {}
    with TemporaryDirectory() as place:
        clip = tiny.save_clip(Path(place) / "clip")
        for name, animal in ZOO.items():
            print(name, file=sys.stderr)
            folder = Path(place) / name
            folder.mkdir()
            stories[name] = tell(animal, clip, folder)
    rows = {name: row_of(ZOO[name], story) for name, story in stories.items()}
    PAGE.write_text(page_of(rows, stories), "utf-8")


if __name__ == "__main__":
    main()
