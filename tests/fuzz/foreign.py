"""Folders of another tool's measurements with edited files; profiles that are made of them are sound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.fuzz.case import Case, command
from tests.fuzz.plans import TRICKS, yaml_text
from tests.fuzz.profiles import METRIC, solved_and_checked
from tests.fuzz.values import mutated, spoilt

GOOD: dict[str, dict[str, Any]] = {
    "sensitivity_weight_sqnr.yaml": {
        "model.conv_in": [10.0, 30.0, 50], "model.mid_block.attn2.to_q": [80.0, 83.9, 83.85],
        "model.mid_block.ff.net.2": [40.0, 39.0, 60.0],
    },
    "sensitivity_weight_ssim.yaml": {
        "model.mid_block.attn2.to_q": [0.5, 0.9, 0.75], "model.mid_block.ff.net.2": [0.25, 0.5, 1.0],
    },
    "ratio_weight.yaml": {
        "model.conv_in": 1.0, "model.mid_block.attn2.to_q": 142.22222222222223, "model.mid_block.ff.net.2": 0.5,
    },
}  # fmt: skip


def run(case: Case) -> None:
    """Spoils one of the files, imports the folder, and solves what was imported."""
    random = case.random
    folder = case.box.inputs / "measured"
    folder.mkdir()
    edited = random.choice((None, *GOOD, *GOOD, *GOOD))
    for name, data in GOOD.items():
        _write(case, folder / name, data, name == edited)
    out = case.box.out / "m.profile"
    imported = command(case, "import", "mixdq", folder, "--out", out, *random.choice(((), ("--json",))))
    if edited is None and not imported.accepted:
        case.find("a good folder is refused", imported.err)
    if imported.accepted:
        solved_and_checked(case, out, METRIC)


def _write(case: Case, path: Path, data: dict[str, Any], edit: bool) -> None:
    random = case.random
    text = yaml_text(data)
    if edit and random.random() < 0.6:
        text = yaml_text(mutated(data, random, random.choice((1, 1, 2))))
    elif edit and random.random() < 0.5:
        text += random.choice(TRICKS)
    path.write_text(text, "utf-8", "surrogatepass")
    if edit and random.random() < 0.2:
        path.write_bytes(spoilt(path.read_bytes(), random))
    if edit:
        case.edits.append(f"{path.name}: {text[:300]!r}")
