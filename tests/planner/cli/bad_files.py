"""Files and folders that are spoilt, for command lines that are to refuse them."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file

import bitplan

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@dataclass(frozen=True)
class World:
    """Good files, and a folder for bad ones."""

    pipeline: Path
    clip: Path
    profile: Path
    plan: Path
    tmp: Path

    def spoilt_plan(self, change: Callable[[dict[str, Any]], object]) -> Path:
        data = yaml.safe_load(self.plan.read_text())
        change(data)
        return self.text(yaml.safe_dump(data, sort_keys=False))

    def text(self, text: str | bytes, name: str = "bad.txt") -> Path:
        path = self.tmp / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def copy_pipeline(self) -> Path:
        return Path(shutil.copytree(self.pipeline, self.tmp / "copy"))

    def below_a_file(self) -> Path:
        return self.text("no folder", "file") / "x.png"

    def profiling(self, pipeline: object = None, out: object = None, **options: object) -> list[object]:
        chosen = {"prompts": self.text("a cat\na dog", "p.txt"), "clip": self.clip, "schemes": "w8a8", "steps": 1}
        chosen |= options
        return [
            "profile", pipeline or self.pipeline, "--out", out or self.tmp / "new.profile",
            *(part for name, value in chosen.items() for part in (f"--{name}", value)),
        ]  # fmt: skip

    def solving(self, *options: object, profile: object = None) -> list[object]:
        return ["solve", profile or self.profile, "--out", self.tmp / "new.yaml", *options]

    def sweeping(self, start: str, stop: str, *options: object) -> list[object]:
        where = ["--out", self.tmp / "new"] if "--out" not in options else []
        return ["sweep", self.profile, "--from", start, "--to", stop, *where, *options]

    def benching(self, plan: Path | None = None, **options: object) -> list[object]:
        named = [part for name, value in options.items() for part in (f"--{name}", value)]
        return ["bench", plan or self.plan, self.pipeline, *named]

    def applying(self, plan: Path | None = None, *options: object, pipeline: object = None) -> list[object]:
        where = ["--out", self.tmp / "x.png"] if "--out" not in options else []
        steps = ["--steps", 1] if "--steps" not in options else []
        return ["apply", plan or self.plan, pipeline or self.pipeline, "--prompt", "a cat", *steps, *where, *options]


def truncated_profile(w: World) -> list[object]:
    size = w.profile.stat().st_size
    with w.profile.open("rb+") as file:
        file.truncate(size * 2 // 3)
    return w.solving()


def unfinished_profile(w: World) -> list[object]:
    with sqlite3.connect(w.profile) as db:
        db.execute("DELETE FROM measurements WHERE rowid IN (SELECT rowid FROM measurements LIMIT 4)")
    return w.solving()


def without_responses(w: World) -> Path:
    """As another tool's profile is."""
    with sqlite3.connect(w.profile) as db:
        db.execute("DELETE FROM responses")
        db.execute("DELETE FROM baseline WHERE key = 'probed'")
    return w.profile


def torn_responses(w: World) -> Path:
    with sqlite3.connect(w.profile) as db:
        db.execute("UPDATE responses SET sums = substr(sums, 1, length(sums) - 4)")
    return w.profile


def newer_profile(w: World) -> list[object]:
    with sqlite3.connect(w.profile) as db:
        db.execute("PRAGMA user_version = 99")
    return w.solving()


def other_layers(plan: dict[str, Any]) -> None:
    plan["schemes"] = {"unet.nowhere.to_q": "w8a8"} | plan["schemes"]


def renamed(old: str, new: str) -> Callable[[dict[str, Any]], None]:
    def change(plan: dict[str, Any]) -> None:
        plan[new] = plan.pop(old)

    return change


def nan_pipeline(w: World, write: Callable[[torch.Tensor], object]) -> Path:
    folder = w.copy_pipeline()
    weights = load_file(folder / WEIGHTS)
    write(weights["conv_in.weight"].view(-1)[:1])
    save_file(weights, folder / WEIGHTS, {"format": "pt"})
    return folder


def torn_weights(w: World) -> list[object]:
    path = w.copy_pipeline() / WEIGHTS
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return w.profiling(path.parents[1])


def without_index(w: World) -> list[object]:
    folder = w.copy_pipeline()
    (folder / "model_index.json").unlink()
    return w.profiling(folder)


def garbled_index(w: World) -> list[object]:
    folder = w.copy_pipeline()
    (folder / "model_index.json").write_text("{")
    return w.profiling(folder)


def other_settings(w: World) -> list[object]:
    return w.profiling(out=w.profile, schemes="w8a8")


def simulated_plan(w: World) -> list[object]:
    bitplan.solve(w.profile, w.tmp / "fake.yaml", uniform="w4a4", kernels="fake")
    return w.applying(w.tmp / "fake.yaml")


def duplicate_key(w: World) -> list[object]:
    return w.applying(w.text(w.plan.read_text() + "\nschemes: {}\n"))


Case = tuple[str, int, str, Callable[[World], list[object]]]
