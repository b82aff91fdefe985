"""Every verb that runs a model measures what is compiled as it was before, and refuses other additions by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from accelerate import cpu_offload
from diffusers import FirstBlockCacheConfig
from diffusers.hooks import apply_group_offloading
from torch import Tensor, nn

import bitplan
from bitplan.planner.errors import BAD_INPUT, UserError
from bitplan.planner.pipelines.subject import Subject
from bitplan.plans.plan import Plan
from tests import tiny
from tests.odd.parts import made, sampled
from tests.odd.patched import Blocks
from tests.packed import paint, plan_for

CPU = torch.device("cpu")
OPTIONS: dict[str, Any] = {"schemes": ("w4a8", "w3a8"), "checks": 0, "timesteps": 1, "probes": 2}
CACHED = "is a step cache"


class Files(NamedTuple):
    profile: Path
    plan: Path


def plain() -> Subject:
    return sampled(made(Blocks))


def cached() -> Subject:
    subject = plain()
    subject.modules["net"].enable_cache(FirstBlockCacheConfig())
    return subject


def compiled() -> Subject:
    return sampled(torch.compile(made(Blocks), backend="eager"))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("additions")
    found = Files(folder / "p.profile", folder / "p.plan.yaml")
    bitplan.profile(plain(), found.profile, **OPTIONS)
    bitplan.solve(found.profile, found.plan, memory="30%")
    return found


VERBS: dict[str, Callable[[Files, Path, str], tuple[object, ...]]] = {
    "profile": lambda f, out, name: ("profile", name, "--out", out / "o.profile"),
    "check": lambda f, out, name: ("check", f.profile, name),
    "evaluate": lambda f, out, name: ("evaluate", f.plan, name, "--out", out / "report", "--no-blocks"),
    "rerank": lambda f, out, name: ("solve", f.profile, "--memory", "30%", "--out", out / "o.plan.yaml",
                                    "--candidates", 2, "--rerank", name),
    "sweep": lambda f, out, name: ("sweep", f.profile, "--out", out / "run", "--points", 2, "--images", 1,
                                   "--pipeline", name),
}  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_that_measures_refuses_a_step_cache(
    verb: str, files: Files, command_line: Any, tmp_path: Path
) -> None:
    result = command_line(*VERBS[verb](files, tmp_path, f"{__name__}:cached"), "-q")
    assert result.exit_code == BAD_INPUT, result.stderr
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("bitplan: net.transformer_blocks.0 has the hook ") and CACHED in line
    assert line.endswith("turn it off first with net.disable_cache(), or load the model without it")


class Stepping(Blocks):
    """Computes at every second call, and returns at the others what it computed before."""

    def forward(self, x: Tensor, time: float, known: Tensor) -> Tensor:
        self.count = getattr(self, "count", -1) + 1
        if self.count % 2 == 0:
            self.kept = super().forward(x, time, known)
        return self.kept * (1 + time)


def stepping() -> Subject:
    net = made(Stepping)
    with torch.no_grad():
        net.transformer_blocks[0].norm1.weight.add_(0.01)
        net.transformer_blocks[0].attn1.to_q.weight.add_(0.01)  # a fine-tune, for check
    return sampled(net)


@pytest.mark.parametrize("verb", ["check", "evaluate"])
def test_one_that_is_no_hook_is_found_by_repeating_calls(
    verb: str, files: Files, command_line: Any, tmp_path: Path
) -> None:
    args = (*VERBS[verb](files, tmp_path, f"{__name__}:stepping"), "-q")
    result = command_line(*args, *(("--allow-mismatch",) if verb == "evaluate" else ()))
    assert result.exit_code == BAD_INPUT, result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith("bitplan: net gives another output when a call of it is")


def test_the_way_out_of_a_step_cache_works(tmp_path: Path) -> None:
    subject = cached()
    subject.modules["net"].disable_cache()
    assert bitplan.profile(subject, tmp_path / "o.profile", **OPTIONS).exists()


def test_evaluate_of_a_compiled_model_is_that_of_the_model(files: Files, tmp_path: Path) -> None:
    options: dict[str, Any] = {"count": 2, "kernels": "fake", "blocks": False}
    one, other = (
        bitplan.evaluate([files.plan], make(), tmp_path / name, **options).to_json()["results"][1]["losses"]
        for name, make in {"plain": plain, "compiled": compiled}.items()
    )
    assert one == other


# apply


@pytest.fixture(scope="module")
def plan() -> Plan:
    return plan_for(tiny.build_pipeline())


@pytest.fixture(scope="module")
def picture(plan: Plan) -> torch.Tensor:
    return paint(bitplan.apply(tiny.build_pipeline(), plan))


def script(unet: nn.Module) -> None:
    unet.conv_in = torch.jit.script(unet.conv_in)


def compile_inside(unet: nn.Module) -> None:
    unet.conv_in = torch.compile(unet.conv_in, backend="eager")  # type: ignore[assignment]


REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "scripted": (script, "unet.conv_in is a module of torch.jit, whose layers cannot be replaced; give the nn.Module"),
    "compiled inside": (compile_inside, "unet.conv_in is compiled by torch.compile, .*; compile the whole component"),
    "sequential offload": (lambda unet: cpu_offload(unet, CPU), r"call remove_all_hooks\(\) of the pipeline first"),
    "group offload": (lambda unet: apply_group_offloading(unet, CPU, CPU, "leaf_level"), "apply the plan first, and"),
    "casting": (lambda unet: unet.enable_layerwise_casting(torch.float8_e4m3fn, torch.float32),
                "LayerwiseCastingHook of diffusers, which casts its weights at each call; load the model without it"),
    "on meta": (lambda unet: unet.to("meta"), "110 of 110 tensors of unet are on the device meta"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_apply_refuses_what_a_plan_cannot_be_applied_to(kind: str, plan: Plan) -> None:
    (add, says), pipe = REFUSED[kind], tiny.build_pipeline()
    add(pipe.unet)
    with pytest.raises(UserError, match=says):
        bitplan.apply(pipe, plan)
    assert not any(type(module).__module__.startswith("bitplan") for module in pipe.unet.modules())


def test_after_the_hooks_are_removed_apply_works(plan: Plan, picture: torch.Tensor) -> None:
    pipe = tiny.build_pipeline()
    cpu_offload(pipe.unet, CPU)
    pipe.remove_all_hooks()
    assert torch.equal(paint(bitplan.apply(pipe, plan)), picture)


TAKEN: dict[str, Callable[[Any], Any]] = {
    "compiled": lambda pipe: setattr(pipe, "unet", torch.compile(pipe.unet, backend="eager")),
    "compiled in place": lambda pipe: pipe.unet.conv_in.compile(backend="eager"),
    "model offload": lambda pipe: pipe.enable_model_cpu_offload(device="cpu"),
}


@pytest.mark.parametrize("kind", TAKEN)
def test_apply_takes_what_stays_outside_the_layers(kind: str, plan: Plan, picture: torch.Tensor) -> None:
    pipe = tiny.build_pipeline()
    full = paint(pipe)
    TAKEN[kind](pipe)
    with torch.compiler.set_stance("force_eager"):  # compiling takes seconds
        assert torch.equal(paint(bitplan.apply(pipe, plan)), picture)
        assert torch.equal(paint(bitplan.restore(pipe)), full)
