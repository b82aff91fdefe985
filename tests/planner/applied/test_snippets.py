"""The Python of README runs on a folder whose weights are in float16: it says in which type to load them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline

import bitplan

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FEW = {"count": 1, "timesteps": 1, "probes": 1, "checks": 0, "schemes": ["w8a8", "w4ma8"], "steps": 1}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_the_type_of_the_weights(page: Path) -> None:
    text = page.read_text("utf-8")
    calls = re.findall(r"DiffusionPipeline\.from_pretrained\(([^)]*(?:\([^)]*\))?[^)]*)\)", text)
    assert "torch_dtype=" not in text
    assert all("dtype=" in call for call in calls if "..." not in call), calls


def test_the_readme_runs_on_a_folder_in_float16(
    tiny_folder: Path, clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "half"
    DiffusionPipeline.from_pretrained(tiny_folder, dtype=torch.float16).save_pretrained(folder)
    measure = bitplan.profile
    monkeypatch.setattr(
        bitplan, "profile", lambda name, out: measure(name, out, clip=str(clip_folder), **FEW), raising=False
    )
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    first = next(each for each in blocks if "bitplan.solve(" in each)
    names: dict[str, Any] = {}
    exec(re.sub(r'"[\w-]+/[\w.-]+"', repr(str(folder)), first), names)  # noqa: S102
    assert isinstance(names["pipe"], DiffusionPipeline)
