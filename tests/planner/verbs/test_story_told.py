"""Plans are evaluated as they predict, and the shell and a machine without torch tell the story of Python."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import bitplan
from bitplan.planner.profiles.profile import open_profile
from bitplan.plans.plan import load_plan
from bitplan.sensitivity.metrics import TEXT_TO_IMAGE
from tests import tiny


@pytest.mark.parametrize("kernels", ["int", "fake"])
def test_evaluate_puts_measured_beside_predicted(
    kernels: str, finished: Path, tiny_folder: Path, clip_folder: Path, tmp_path: Path
) -> None:
    paths = [tmp_path / "small.plan.yaml", tmp_path / "w8.plan.yaml"]
    plans = [bitplan.solve(finished, paths[0], memory="15%", kernels=kernels)]
    plans.append(bitplan.solve(finished, paths[1], uniform="w8a8"))
    found = bitplan.evaluate(
        paths, str(tiny_folder), tmp_path / "report", prompts=tiny.PROMPTS, kernels=kernels, clip=str(clip_folder),
        steps=2, guidance=2.0, blocks=kernels == "int",
    )  # fmt: skip
    full, *measured = found.results
    assert [r.name for r in measured] == ["small", "w8"]
    for plan, result in zip(plans, measured, strict=True):
        assert result.bytes == plan.predictions["total"]["bytes"] < full.bytes
        assert set(result.losses) == set(TEXT_TO_IMAGE)
    assert measured[0].losses["nsr"] > measured[1].losses["nsr"] > (0.0, 0.0)
    assert set(full.losses.values()) == {(0.0, 0.0)}
    written = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [r["bytes"]["measured"] for r in written["results"]] == [r.bytes for r in found.results]
    for name, rows in written["blocks"].items():
        assert sum(row["measured"]["bytes"] for row in rows) == next(r.bytes for r in measured if r.name == name)
        assert all(row["measured"]["bytes"] == row["predicted"]["bytes"] for row in rows)
    assert bool(written["blocks"]) == (kernels == "int")
    assert "small" in (tmp_path / "report" / "report.md").read_text()
    with Image.open(tmp_path / "report" / "images.png") as sheet:
        assert sheet.height == 3 * (tiny.SIDE * (128 // tiny.SIDE) + 4)


def test_the_shell_tells_the_same_story(
    command_line: Any, tiny_folder: Path, clip_folder: Path, finished: Path, tmp_path: Path
) -> None:
    profile, plan, report = tmp_path / "t.profile", tmp_path / "p.plan.yaml", tmp_path / "report"
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(tiny.PROMPTS))

    def told(*args: object) -> str:
        result = command_line(*args)
        assert result.exit_code == 0, result.output
        return result.stdout

    settings = ["--prompts", prompts, "--clip", clip_folder, "--steps", 2, "--guidance", 2]
    assert "next: bitplan solve" in told(
        "profile", tiny_folder, "--out", profile, "--schemes", "w2ma8", "--timesteps", 1, "--threads", 1, *settings
    )
    assert "151 of 151" not in told("inspect", profile)
    assert "151 of 151" in told("inspect", finished)
    text = told("solve", profile, "--out", plan, "--memory", "20%", "--cap", "nsr=w2ma8", "--pin", "unet.conv_in=keep")
    assert "optimal" in text
    assert told("inspect", plan, "--profile", profile).strip() in text
    outs = ["--out", tmp_path / "x.png"]
    assert told("apply", plan, tiny_folder, "--prompt", "a cat", "--steps", 2, *outs) == f"wrote {outs[1]}\n"
    told("apply", plan, tiny_folder, "--prompt", "a cat", "--prompt", "a dog", "--steps", 2, "--kernels", "fake", *outs)
    assert {p.name for p in tmp_path.glob("*.png")} == {"x.png", "x-1.png", "x-2.png"}
    table = told("evaluate", plan, tiny_folder, *settings, "--no-blocks", "--out", report)
    assert "full precision" in table
    assert {p.name for p in report.iterdir()} == {"report.md", "report.json", "images.png"}
    assert "cpu_int8" in told("doctor")


def test_the_shell_and_python_write_the_same_plan(command_line: Any, finished: Path, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours.yaml", tmp_path / "theirs.yaml"
    bitplan.solve(finished, ours, memory="25%", caps={"dssim": "w4g64ma8"}, objective="quality=1,alignment=0.5")
    result = command_line("solve", finished, "--out", theirs, "--memory", "25%", "--cap", "dssim=w4g64ma8",
                     "--objective", "quality=1,alignment=0.5")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert ours.read_bytes() == theirs.read_bytes()


def test_a_finished_profile_is_left_as_it_is(
    command_line: Any, finished: Path, profile: Path, tiny_folder: Path, clip_folder: Path
) -> None:
    bitplan.profile(str(tiny_folder), profile, clip=str(clip_folder), **tiny.SETTINGS)
    with open_profile(profile) as again, open_profile(finished) as before:
        assert again.measurements() == before.measurements()
        assert again.costs() == before.costs()


def test_a_machine_without_torch_solves(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.plan.yaml"
    code = f"""import sys
sys.modules |= dict.fromkeys(("torch", "diffusers", "transformers"))
from bitplan.planner.cli import main
main(["solve", {str(finished)!r}, "--memory", "30%", "--out", {str(out)!r}], standalone_mode=False)
main(["inspect", {str(out)!r}], standalone_mode=False)
main(["inspect", {str(finished)!r}], standalone_mode=False)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert bitplan.solve(finished, tmp_path / "again.yaml", memory="30%") == load_plan(out)
