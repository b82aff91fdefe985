"""A profile of a variant of the weights is followed by all verbs that load the pipeline again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import bitplan
from bitplan.planner.errors import UserError
from bitplan.planner.page.painter import Painter, PaintOptions
from bitplan.planner.profiles.profile import open_profile
from bitplan.plans.plan import load_plan
from tests import tiny

VARIANT = "fp16"
SETTINGS: dict[str, Any] = {**tiny.SETTINGS, "schemes": ("w8a8",), "checks": 0}


@dataclass(frozen=True)
class Files:
    """pipeline: a folder with plain weights and others as a variant, of which the profile and the plan are."""

    pipeline: str
    profile: Path
    plan: Path
    at: Path
    clip: str


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, clip_folder: Path) -> Files:
    at = tmp_path_factory.mktemp("variant")
    for seed, variant in ((0, VARIANT), (1, None)):
        tiny.build_pipeline(seed).save_pretrained(at / "pipeline", variant=variant)
    made = Files(str(at / "pipeline"), at / "t.profile", at / "p.plan.yaml", at, str(clip_folder))
    bitplan.profile(made.pipeline, made.profile, clip=made.clip, variant=VARIANT, **SETTINGS)
    bitplan.solve(made.profile, made.plan, memory="60%")
    return made


def test_it_is_recorded(files: Files) -> None:
    with open_profile(files.profile) as store:
        header = store.header()
    assert header["model"]["variant"] == load_plan(files.plan).model["variant"] == VARIANT
    assert "variant" not in header["settings"]


def explored(files: Files, variant: str | None) -> None:
    painter = Painter(PaintOptions(files.pipeline, 1, variant=variant))
    painter._run(lambda: load_plan(files.plan), "a cat", 0)
    if painter.picture.error:
        raise UserError(painter.picture.error)


SHORT = {"kernels": "fake", "steps": 1}
VERBS: dict[str, Callable[[Files, str | None], Any]] = {
    "paint": lambda f, v: bitplan.paint(f.plan, f.pipeline, ["a"], f.at / "a.png", variant=v, steps=1),
    "simulated": lambda f, v: bitplan.paint(f.plan, f.pipeline, ["a"], f.at / "a.png", variant=v, **SHORT),
    "evaluate": lambda f, v: bitplan.evaluate(
        [f.plan], f.pipeline, f.at / "report", count=2, blocks=False, variant=v, steps=1, clip=f.clip
    ),
    "bench": lambda f, v: bitplan.bench(f.plan, f.pipeline, pairs=1, against=("float32",), variant=v),
    "check": lambda f, v: bitplan.check(f.profile, f.pipeline, variant=v),
    "solve": lambda f, v: bitplan.solve(
        f.profile,
        f.at / "q.plan.yaml",
        memory="60%",
        candidates=2,
        rerank=f.pipeline,
        prompts=["a", "b"],
        clip=f.clip,
        variant=v,
    ),
    "sweep": lambda f, v: bitplan.sweep(
        f.profile, f.at / f"run{v}", points=2, images=1, count=2, pipeline=f.pipeline, variant=v
    ),
    "explore": explored,
}


@pytest.mark.parametrize("verb", VERBS)
def test_verbs_take_it_again(verb: str, files: Files) -> None:
    """The fingerprint of plain weights would be refused."""
    VERBS[verb](files, None)
    with pytest.raises(UserError, match=r"lacks weights of the variant bf16; it has .*unet \(fp16 and plain ones\)"):
        VERBS[verb](files, "bf16")


def test_export_loads_it(files: Files) -> None:
    with pytest.raises(UserError, match="lacks weights of the variant bf16"):
        bitplan.export(files.plan, "torchao", files.at / "t.json", model=files.pipeline, variant="bf16")


def test_profile_refuses_one_that_is_not_there(files: Files) -> None:
    with pytest.raises(UserError, match="lacks weights of the variant bf16"):
        bitplan.profile(files.pipeline, files.at / "u.profile", variant="bf16", **SETTINGS)
