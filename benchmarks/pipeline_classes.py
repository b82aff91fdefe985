"""Takes many pipeline classes of diffusers, built small, from the profile to a call with the plan, and to the same call
after saving and loading.

`python -m benchmarks.pipeline_classes [NAME ...]` writes benchmarks/results/pipeline_classes.json. Without names, it
runs the classes of which that file has no row.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from benchmarks.about import about, write_result
from benchmarks.classes import CLASSES
from diffusers.utils import is_ftfy_available
from tests import tiny
from tests.zoo.animal import Animal

import bitplan
from bitplan.planner.costs import clock
from bitplan.planner.errors import CallError, UserError, is_own
from bitplan.planner.pipelines.calling import Caller
from bitplan.planner.pipelines.sources import load_pipeline
from bitplan.planner.pipelines.subject import Subject, run_subject, subject_of
from bitplan.planner.profiles.profile import open_profile

RESULT = Path(__file__).parent / "results" / "pipeline_classes.json"
RESULTS = ("ok", "refused", "failed", "wrong")
SCHEMES = ("w8a8", "w4a8", "w4a16")
MEMORY = "60%"  # of the planned layers
SEED, SEEDS = 0, 5  # the first seed, and the number of seeds of which outputs after loading are compared


def taken(animal: Animal, clip: Path, folder: Path) -> dict[str, Any]:
    """Profiles, solves, applies and calls one class. Returns what its row says."""
    pipe = animal.build()
    _without_ftfy()  # the class has been imported
    subject = replace(subject_of(pipe, animal.generation), conditions=animal.conditions)
    full = run_subject(subject, animal.conditions, SEED)
    profile, method = profiled(subject, clip, folder)
    with open_profile(profile) as store:
        sources = {m.layer: m.source for m in store.measurements()}
        parts = store.header()["model"]["components"]
    bitplan.solve(profile, folder / "p.plan.yaml", memory=MEMORY)
    bitplan.apply(pipe, folder / "p.plan.yaml", kernels="int")
    planned = [run_subject(subject, animal.conditions, SEED + i) for i in range(SEEDS)]
    after = loaded(pipe, animal, folder / "packed")
    bitplan.restore(pipe)
    restored = run_subject(subject, animal.conditions, SEED)
    equal = sum(map(torch.equal, after, planned))
    again = after if equal == SEEDS else loaded(pipe, animal, folder / "float")
    return {
        "planned": ", ".join(parts), "layers": len(sources),
        "method": method, "probed": sum(source == "probes" for source in sources.values()),
        "difference": round(float((planned[0] - full).square().mean().sqrt() / full.std()), 3),
        "restored": "same" if torch.equal(restored, full) else "differs",
        "loaded": equal,
        "loaded in float": SEEDS if again is after else SEEDS * int(bool(again) and torch.equal(again[0], restored)),
        **way_of(subject),
    }  # fmt: skip


def loaded(pipe: Any, animal: Animal, folder: Path) -> list[torch.Tensor]:
    """The outputs of the pipeline after saving and loading, a tensor for each seed; none if it cannot be loaded."""
    pipe.save_pretrained(folder)
    try:
        subject = replace(subject_of(load_pipeline(str(folder)), animal.generation), conditions=animal.conditions)
    except UserError as error:
        print(error, file=sys.stderr)
        return []
    return [run_subject(subject, animal.conditions, SEED + i) for i in range(SEEDS)]


def profiled(subject: Subject, clip: Path, folder: Path) -> tuple[Path, str]:
    """Profiles by probes, or exhaustively where the message says so. Returns the file and the method."""
    options: dict[str, Any] = {"timesteps": 1, "clip": str(clip)}
    try:
        return Path(
            bitplan.profile(subject, folder / "p.profile", schemes=SCHEMES, checks=0, probes=2, **options)
        ), "probes"
    except ValueError as error:
        if "--method exhaustive" not in str(error):
            raise
        print(error, file=sys.stderr)
    return Path(
        bitplan.profile(subject, folder / "e.profile", schemes=SCHEMES[1:], method="exhaustive", **options)
    ), "exhaustive"


def way_of(subject: Subject) -> dict[str, Any]:
    """How the pipeline is called."""
    assert isinstance(subject.run, Caller) and subject.run.together is not None
    way = subject.run.together
    return {"one call": "yes" if way.together else "no", "output type": way.output_type or "own"}


def row_of(animal: Animal, clip: Path, folder: Path) -> dict[str, Any]:
    """The row of one class: what ran, or the message that refuses it."""
    try:
        row = taken(animal, clip, folder)
    except Exception as error:
        kind = "refused" if is_own(error) and not isinstance(error, CallError) else "failed"
        if "-v" in sys.argv:
            traceback.print_exc()
        return {
            "class": animal.name,
            "family": animal.family,
            "result": kind,
            "message": str(error)[:300] or repr(error),
        }
    good = row["restored"] == "same" and row["difference"] < 1 and row["loaded"] == row["loaded in float"]
    return {"class": animal.name, "family": animal.family, "result": "ok" if good else "wrong", **row}


@contextmanager
def folders() -> Iterator[Path]:
    """An empty folder, in memory where possible."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as place:
        yield Path(place)


def _without_ftfy() -> None:
    """Cleans prompts without ftfy, which some classes call, installed or not."""
    for module in [module for name, module in sys.modules.items() if name.startswith("diffusers.pipelines.")]:
        if hasattr(module, "prompt_clean") and not is_ftfy_available():
            vars(module)["prompt_clean"] = str.strip


def main() -> None:
    torch.set_num_threads(1)
    clock._BUDGET = 0.0  # milliseconds are read by nobody here
    rows = {row["class"]: row for row in json.loads(RESULT.read_text("utf-8"))["classes"]} if RESULT.exists() else {}
    for name in [name for name in sys.argv[1:] if name != "-v"] or [name for name in CLASSES if name not in rows]:
        with folders() as folder:
            (folder / "run").mkdir()
            rows[name] = row_of(CLASSES[name], tiny.save_clip(folder / "clip"), folder / "run")
        print(rows[name], file=sys.stderr)
        write(rows)


def write(rows: dict[str, dict[str, Any]]) -> None:
    """Writes the rows in the order of the classes."""
    kept = [rows[name] for name in CLASSES if name in rows]
    results = Counter(row["result"] for row in kept)
    count = {name: results[name] for name in RESULTS} | {"not run": len(CLASSES) - len(kept)}
    described = about(SEED, "diffusers", "transformers", "numpy", seeds=SEEDS, schemes=SCHEMES, memory=MEMORY)
    write_result(RESULT, {"count": count, "classes": kept}, described)


if __name__ == "__main__":
    main()
