"""The story on one page: each function is a verb, reads files and writes files, and is a sub-command of the same name.

pipeline -> layer graph -> calibration -> costs and sensitivities -> X.profile        profile
X.profile + budgets -> problem -> solution -> P.plan.yaml                             solve
P.plan.yaml + pipeline -> swapped layers, fake or real kernels -> images              apply, restore
P.plan.yaml + pipeline + held-out prompts -> predicted beside measured                evaluate
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.errors import UserError

if TYPE_CHECKING:  # each verb imports what it needs when it runs: solving needs no torch
    from planner.pipelines import Generation
    from planner.report import Evaluation
    from plans.plan import Plan

DEFAULT_SCHEMES = ("w8a8", "w6a8", "w5ma8", "w4ma8", "w3ma8", "w2ma8", "w4g64ma8", "w3g64ma8", "w2g64ma8")
KERNELS = ("int", "fake")
PathLike = str | Path


def profile(
    pipeline: str,
    out: PathLike,
    *,
    prompts: PathLike | Sequence[str] | None = None,
    count: int = 8,
    schemes: Sequence[str] = DEFAULT_SCHEMES,
    components: Sequence[str] = (),
    clip: str | None = None,
    timesteps: int = 4,
    steps: int | None = None,
    guidance: float | None = None,
    seed: int = 0,
) -> Path:
    """Measure what each scheme does to each layer of `pipeline`, into the file `out`; goes on where one stopped.

    pipeline: `scenes`, a folder or a hub id; prompts: a file with one a line, or the prompts, else `count` built-in
    ones; timesteps: denoiser calls replayed a measurement; clip: the CLIPModel that measures alignment.
    """
    from planner import profiling
    from planner import prompts as prompt_lists
    from planner.pipelines import SCENES, load_encoder, load_pipeline

    generation = _generation(pipeline, steps, guidance, seed)
    chosen = _prompts(prompts, lambda: prompt_lists.built_in_prompts(pipeline == SCENES, count))
    settings = profiling.Settings(
        pipeline, tuple(chosen), tuple(schemes), generation, timesteps, tuple(components), clip
    )
    profiling.check_settings(settings, Path(out))
    pipe, encoder = load_pipeline(pipeline), load_encoder(pipeline, clip)
    subject = profiling.examine(pipe, settings.prompts, generation, components)
    profiling.run_profile(subject, settings, encoder, Path(out))
    return Path(out)


def solve(
    profile: PathLike,
    out: PathLike,
    *,
    memory: str | None = None,
    latency: str | None = None,
    bits: float | None = None,
    caps: Mapping[str, str] | None = None,
    objective: str = "both",
    uniform: str | None = None,
    pins: Mapping[str, str] | None = None,
    kernels: str = "int",
    time_limit: float = 60.0,
    solver: str | None = None,
) -> Plan:
    """Choose one scheme a layer and write the plan file `out`.

    memory, latency: `35%` of full precision, or an amount with its unit; bits: mean bits a weight; caps: column -> the
    most it may sum to, or a scheme whose uniform plan sets the bound; objective: quality, alignment, both, or weights;
    uniform: take this scheme everywhere instead of solving; pins: layer -> scheme. Raises InfeasibleError.
    """
    from planner import solving
    from planner.formulate import weights_of
    from planner.store import open_profile
    from plans.plan import save_plan

    _check_kernels(kernels)
    with open_profile(profile) as store:
        request = solving.Request(memory, latency, bits, dict(caps or {}), weights_of(objective), uniform,
                                  dict(pins or {}), kernels == "int", time_limit, solver)  # fmt: skip
        plan = solving.make_plan(store, request)
    save_plan(plan, out)
    return plan


def apply(
    pipe: Any, plan: Plan | PathLike, *, kernels: str = "int", allow_mismatch: bool = False, keep_originals: bool = True
) -> Any:
    """The same diffusers pipeline object with its layers swapped as the plan says; `restore` undoes it.

    keep_originals=False frees each float weight as it goes, and with it the way back.
    """
    from planner.applying import apply_plan
    from plans.plan import Plan, load_plan

    plan = plan if isinstance(plan, Plan) else load_plan(plan)
    _check_kernels(kernels)
    apply_plan(pipe, plan, kernels, allow_mismatch, keep_originals)
    return pipe


def restore(pipe: Any) -> Any:
    """The same pipeline object with its float layers back."""
    from planner.applying import restore_pipeline

    restore_pipeline(pipe)
    return pipe


def paint(
    plan: Plan | PathLike | None,
    pipeline: str,
    prompt: Sequence[str],
    out: PathLike,
    *,
    kernels: str = "int",
    allow_mismatch: bool = False,
    steps: int | None = None,
    guidance: float | None = None,
    seed: int = 0,
) -> list[Path]:
    """Load the pipeline, apply the plan for good, and write one picture a prompt: `out`, or `out` with -1, -2, ..."""
    from planner.grid import check_picture, to_picture
    from planner.pipelines import generate, load_pipeline
    from plans.plan import Plan, load_plan

    generation = _generation(pipeline, steps, guidance, seed)
    check_picture(Path(out))
    loaded = plan if isinstance(plan, Plan) or plan is None else load_plan(plan)
    pipe = load_pipeline(pipeline)
    if loaded:
        apply(pipe, loaded, kernels=kernels, allow_mismatch=allow_mismatch, keep_originals=False)
    images = generate(pipe, list(prompt), generation)
    out = Path(out)
    paths = [out if len(images) == 1 else out.with_stem(f"{out.stem}-{i + 1}") for i in range(len(images))]
    for image, path in zip(images, paths, strict=True):
        to_picture(image).save(path)
    return paths


def evaluate(
    plans: Sequence[PathLike],
    pipeline: str,
    out: PathLike,
    *,
    prompts: PathLike | Sequence[str] | None = None,
    count: int = 64,
    kernels: str = "int",
    blocks: bool = True,
    allow_mismatch: bool = False,
    clip: str | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    seed: int = 1000,
) -> Evaluation:
    """Predicted beside measured for each plan, on held-out prompts, into `report.md`, `.json` and `images.png` of the
    folder `out`. blocks: also each block's layers alone."""
    from tqdm import tqdm

    from planner import evaluating, report
    from planner.applying import check_model
    from planner.pipelines import components as components_of
    from planner.pipelines import load_encoder, load_pipeline

    _check_kernels(kernels)
    loaded = _read_plans(plans)
    report.make_folder(Path(out))
    generation = _generation(pipeline, steps, guidance, seed)
    chosen = _prompts(prompts, lambda: _held_out(pipeline, count))
    pipe, encoder = load_pipeline(pipeline), load_encoder(pipeline, clip)
    parts = components_of(pipe, next(iter(loaded.values())).model["components"])
    for plan in loaded.values():
        check_model(plan, parts, allow_mismatch)
    bench = evaluating.build_bench(pipe, parts, list(plan.schemes), encoder, chosen, generation)
    results = [evaluating.evaluate_full(bench)]
    results += [evaluating.evaluate_plan(bench, plan, kernels, name) for name, plan in tqdm(loaded.items(), "plans")]
    rows = {name: evaluating.block_rows(bench, plan, kernels) for name, plan in loaded.items()} if blocks else {}
    found = report.Evaluation(results, loaded, rows, evaluating.conditions(pipeline, chosen, generation, kernels))
    report.write_report(found, Path(out))
    return found


def inspect(file: PathLike) -> str:
    """What a profile or a plan file holds."""
    from planner import inspecting

    return inspecting.inspect_file(Path(file))


def doctor() -> str:
    """Which kernels, solvers, metrics and extras are available here, or why not."""
    from planner import inspecting

    return inspecting.doctor_text()


def _generation(pipeline: str, steps: int | None, guidance: float | None, seed: int) -> Generation:
    from planner.pipelines import DEFAULTS, FALLBACK, Generation

    default = DEFAULTS.get(pipeline, FALLBACK)
    if steps is not None and steps < 1:
        raise UserError(f"{steps} steps make no image; ask for at least 1")
    if guidance is not None and not math.isfinite(guidance):
        raise UserError(f"--guidance {guidance} is no scale; give a finite number, such as 7.5")
    return Generation(steps or default.steps, default.guidance if guidance is None else guidance, seed)


def _prompts(given: PathLike | Sequence[str] | None, built_in: Callable[[], list[str]]) -> list[str]:
    from planner import prompts as prompt_lists

    if given is None:
        return built_in()
    return prompt_lists.read_prompts(Path(given)) if isinstance(given, (str, Path)) else list(given)


def _held_out(pipeline: str, count: int) -> list[str]:
    from planner import prompts as prompt_lists
    from planner.pipelines import SCENES

    if pipeline == SCENES:
        return prompt_lists.held_out_prompts(count)
    return prompt_lists.built_in_prompts(False, min(count, len(prompt_lists.GENERAL)))


def _check_kernels(kernels: str) -> None:
    if kernels not in KERNELS:
        raise UserError(f"there are no {kernels!r} kernels; choose {' or '.join(KERNELS)}")


def _read_plans(paths: Sequence[PathLike]) -> dict[str, Plan]:
    """Name of the file -> plan. Raises UserError where they cannot be told apart or compared, PlanError."""
    from planner.report import check_comparable
    from plans.plan import load_plan

    plans = {Path(path).name.removesuffix(".yaml").removesuffix(".plan"): load_plan(path) for path in paths}
    check_comparable(plans, len(paths))
    return plans
