"""The good files that all cases spoil copies of, made once: a tiny pipeline, its profile, plans, a sweep."""

from __future__ import annotations

import logging
import random
import shutil
import sqlite3
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.fuzz.values import Below

POINTS = 3  # limits of the sweep
SCHEMES = ("w8a8", "w4ma8", "w2ma8")
LAYERS = ("time_embedding.linear_1", "conv_in", "down_blocks.0.resnets.0.conv1", "up_blocks.0.resnets.0.conv1",
          "up_blocks.0.resnets.0.conv_shortcut", "conv_out")  # of the profile  # fmt: skip
TIED = ["unet.up_blocks.0.resnets.0.conv1", "unet.up_blocks.0.resnets.0.conv_shortcut"]  # they read one input
PAINTED = "canary_module:pipe"  # what the profile says that it was measured on: nothing may import it


@dataclass(frozen=True)
class World:
    """The good files.

    Attributes:
        root: their folder.
        profile: a profile of 6 layers and 3 schemes, with 3 metrics.
        whole: the profile of all layers of the pipeline.
        plan: a plan of `profile`.
        run: a sweep of it.
        pipeline: a tiny pipeline.
        pipeline_plan: a plan for it.
        packed: the pipeline, saved with that plan.
    """

    root: Path
    profile, whole, plan = Below("good.profile"), Below("whole.profile"), Below("good.plan.yaml")
    run, pipeline, packed = Below("run"), Below("pipeline"), Below("packed")
    pipeline_plan = Below("pipeline.plan.yaml")


class CurrentError:
    """Writes to what standard error is when it is written to."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def preload() -> None:
    """Imports what is slow to import, before processes are forked."""
    import diffusers
    import torch

    import bitplan.planner.applied.pipeline
    import bitplan.planner.evaluation.speed
    import bitplan.planner.finetunes.check
    import bitplan.planner.page.html
    import bitplan.planner.views.painting  # noqa: F401

    torch.set_num_threads(1)
    for name in ("diffusers", "transformers"):  # they keep the standard error of now; cases have their own
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.setStream(CurrentError())
    _ = diffusers.DDPMPipeline, diffusers.UNet2DModel, diffusers.DDPMScheduler


def build(root: Path) -> World:
    """Makes the files in an empty folder."""
    import bitplan
    from bitplan.planner.pipelines.sources import load_pipeline
    from bitplan.plans.plan import save_plan
    from tests.packed import plan_for

    world = World(root)
    pipe = _pipeline()
    pipe.save_pretrained(world.pipeline)
    save_plan(plan_for(pipe, schemes=("w8a8", "w4g64ma8", "keep", "w3a16", "w8a8t", "fp8a16")), world.pipeline_plan)
    pipe = bitplan.apply(load_pipeline(str(world.pipeline)), world.pipeline_plan)
    pipe.save_pretrained(world.packed)
    bitplan.profile(str(world.pipeline), world.profile, schemes=SCHEMES, steps=2, timesteps=1, count=2, probes=1,
                    checks=0)  # fmt: skip
    shutil.copyfile(world.profile, world.whole)
    with sqlite3.connect(world.profile) as db:
        _cut(db)
    db.close()
    bitplan.solve(world.profile, world.plan, memory="30%")
    bitplan.sweep(world.profile, world.run, points=POINTS)
    return world


def copied(path: Path, folder: Path) -> Path:
    """A copy of one of the files or folders in another folder."""
    target = folder / path.name
    return Path(shutil.copytree(path, target) if path.is_dir() else shutil.copyfile(path, target))


def _pipeline() -> Any:
    import torch
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=12, in_channels=3, out_channels=3, layers_per_block=1, block_out_channels=(8,), norm_num_groups=4,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), mid_block_type=None, add_attention=False,
    )  # fmt: skip
    return DDPMPipeline(unet, DDPMScheduler(num_train_timesteps=4))


def _cut(db: sqlite3.Connection) -> None:
    """Keeps `LAYERS`, ties two of them, adds a metric of alignment, and replaces what a clock measured."""
    names = [f"unet.{name}" for name in LAYERS]
    kept = f"({', '.join(map(repr, names))})"
    for table, column in (("layers", "address"), ("ranges", "layer"), ("costs", "layer"), ("measurements", "layer"),
                          ("responses", "layer")):  # fmt: skip
        db.execute(f"DELETE FROM {table} WHERE {column} NOT IN {kept}")
    db.execute("UPDATE graph SET value = '[]' WHERE key = 'edges'")
    db.execute("UPDATE graph SET value = json_array(json_array(?, ?)) WHERE key = 'shared_inputs'", TIED)
    db.execute("UPDATE header SET value = json_set(value, '$.name', ?) WHERE key = 'model'", (PAINTED,))
    db.execute("UPDATE baseline SET value = '\"int8 products\"' WHERE key = 'int8 products'")
    db.execute("INSERT INTO measurements SELECT layer, scheme, 'embed_drift', 'alignment', mean, stderr, count, "
               "finite, 'exhaustive' FROM measurements WHERE metric = 'nsr'")  # fmt: skip
    numbers = random.Random(0)
    for table, columns in (("costs", ("ms",)), ("measurements", ("mean", "stderr"))):
        for (row,) in db.execute(f"SELECT rowid FROM {table} ORDER BY rowid").fetchall():
            for column in columns:
                db.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (numbers.uniform(0.01, 1), row))
    losses(db, numbers)


def losses(db: sqlite3.Connection, numbers: random.Random) -> None:
    """Fewer bits lose more."""
    bits = " ".join(f"WHEN '{scheme}' THEN {10.0 ** -int(scheme[1])}" for scheme in SCHEMES)
    db.execute(f"UPDATE measurements SET mean = mean * CASE scheme {bits} END")
    db.execute("UPDATE measurements SET stderr = mean * 0.1")


def plan_data(path: Path) -> Any:
    """What a plan file says, by a reader that is not BitPlan's."""
    return yaml.load(path.read_text("utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506


def rows(path: Path, query: str) -> Iterable[tuple[Any, ...]]:
    """What the query finds in a SQLite file."""
    db = sqlite3.connect(path)
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()
