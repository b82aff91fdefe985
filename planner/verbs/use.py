"""The verbs that end in a pipeline or in pictures: a plan put in, taken out, painted with, evaluated, timed and shown.

Part of the story in `bitplan.planner.verbs.choose`, which has their names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitplan.planner.choice.published import plan_in
from bitplan.planner.files import PathLike
from bitplan.planner.pipelines.conditions import conditions_in
from bitplan.planner.verbs import parameters as arguments
from bitplan.plans.plan import dtype_of

if TYPE_CHECKING:
    from bitplan.planner.evaluation.report import Evaluation
    from bitplan.planner.evaluation.speed import Timings
    from bitplan.planner.interop.targets.base import Export
    from bitplan.planner.pipelines.subject import Subject
    from bitplan.plans.plan import Plan


def export(
    plan: Plan | PathLike, to: str, out: PathLike, *, model: PathLike | None = None, approximate: bool = False
) -> tuple[Export, ...]:
    """Write the plan as the configuration of another tool, a name of `bitplan.planner.interop.targets.TARGETS`: one
    file a component.

    model: the plan's profile, or a pipeline, else the pipeline that the plan names; approximate: take the nearest that
    the tool can express, listed in `changes`. Raises UserError where the tool cannot express some layers' schemes.
    """
    from bitplan.planner.interop.targets import export_plan

    return export_plan(plan_in(plan), to, Path(out), None if model is None else str(model), approximate)


def plans_in(paths: Sequence[PathLike]) -> dict[str, Plan]:
    """Name of the file -> plan. Raises UserError where they cannot be told apart or compared, PlanError."""
    from bitplan.planner.evaluation.report import check_comparable

    plans = {Path(path).name.removesuffix(".yaml").removesuffix(".plan"): plan_in(path) for path in paths}
    check_comparable(plans, len(paths))
    return plans


def apply(
    pipe: Any, plan: Plan | PathLike, *, kernels: str = "int", allow_mismatch: bool = False, keep_originals: bool = True
) -> Any:
    """The same diffusers pipeline object with its layers swapped as the plan says; `restore` undoes it.

    keep_originals=False frees each float weight as it goes, and with it the way back.
    """
    from bitplan.planner.applied.pipeline import apply_plan

    arguments.check_kernels(kernels)
    apply_plan(pipe, plan_in(plan), kernels, allow_mismatch, keep_originals)
    return pipe


def restore(pipe: Any) -> Any:
    """The same pipeline object with its float layers back."""
    from bitplan.planner.applied.pipeline import restore_pipeline

    restore_pipeline(pipe)
    return pipe


def config(
    plan: Plan | PathLike, component: str | None = None, *, kernels: str = "int", allow_mismatch: bool = False
) -> Any:
    """What `DiffusionPipeline.from_pretrained(..., quantization_config=)` takes to quantize as the plan says while it
    loads, weight by weight; with `component`, such as `unet`, what that model's own `from_pretrained` takes.

    The result is that of `apply` on the float32 pipeline, to the bit; kernels, allow_mismatch: as there.
    """
    from bitplan.planner.applied.loading import loading_config

    arguments.check_kernels(kernels)
    return loading_config(plan_in(plan), component, kernels, allow_mismatch)


def paint(
    plan: Plan | PathLike | None, pipeline: str | Subject, prompt: Sequence[Any], out: PathLike, *,
    prompts: PathLike | None = None, count: int = 1, kernels: str = "int", allow_mismatch: bool = False,
    steps: int | None = None, guidance: float | None = None, seed: int = 0, call: Mapping[str, Any] | None = None,
) -> list[Path]:  # fmt: skip
    """Load the pipeline with the plan in it, and write one picture a prompt: `out`, or `out` with -1, -2, ...

    prompt: prompts or other conditions, else those of the file `prompts`, else `count` of the pipeline's own; other
    outputs than pictures are written as `.gif` and `.npy`; call: as in `profile`.
    """
    from bitplan.planner.applied.pipeline import load_planned
    from bitplan.planner.pipelines.outputs import check_output, save_outputs
    from bitplan.planner.pipelines.sources import generation_of
    from bitplan.planner.pipelines.subject import conditions_of, output_of, run_subject

    generation = generation_of(pipeline, steps, guidance, seed, call)
    check_output(Path(out))
    arguments.check_kernels(kernels)
    given = list(prompt) or conditions_in(prompts)
    loaded = None if plan is None else plan_in(plan)
    subject = load_planned(pipeline, loaded, generation, kernels, allow_mismatch)
    outputs = run_subject(subject, conditions_of(subject, given, count, held_out=True), seed, batch=16)
    return save_outputs(outputs, output_of(subject, outputs), Path(out))


def evaluate(
    plans: Sequence[PathLike], pipeline: str | Subject, out: PathLike, *,
    prompts: PathLike | Sequence[Any] | None = None, count: int = 64, kernels: str = "int", blocks: bool = True,
    allow_mismatch: bool = False, clip: str | None = None, steps: int | None = None, guidance: float | None = None,
    seed: int = 1000, call: Mapping[str, Any] | None = None, metrics: Sequence[str] = (),
    offload_folder: PathLike | None = None,
) -> Evaluation:  # fmt: skip
    """Predicted beside measured for each plan, on held-out prompts, into `report.md`, `.json` and `images.png` of the
    folder `out`. blocks: also each block's layers alone; the rest as in `profile`."""
    from bitplan.planner.applied.pipeline import check_model
    from bitplan.planner.evaluation.plans import block_rows, build_bench, conditions, evaluate_full, evaluate_plan
    from bitplan.planner.evaluation.report import Evaluation, write_report
    from bitplan.planner.files import make_folder
    from bitplan.planner.pipelines.sources import float_components, generation_of, load_subject
    from bitplan.planner.pipelines.subject import conditions_of
    from bitplan.planner.progress import bar

    arguments.check_kernels(kernels)
    loaded = plans_in(plans)
    make_folder(Path(out))
    generation = generation_of(pipeline, steps, guidance, seed, call)
    given = conditions_in(prompts)
    subject = load_subject(pipeline, generation, dtype_of(loaded.values()), offload_folder)
    for plan in loaded.values():
        check_model(plan, float_components(subject, plan.model["components"]), allow_mismatch)
    chosen = conditions_of(subject, given, count, held_out=True)
    bench = build_bench(subject, list(plan.schemes), chosen, seed, metrics, clip)
    results = [evaluate_full(bench)]
    results += [
        evaluate_plan(bench, plan, kernels, name) for name, plan in bar(loaded.items(), "plans", len(loaded), "plan")
    ]
    rows = {name: block_rows(bench, plan, kernels) for name, plan in loaded.items()} if blocks else {}
    about = conditions(subject.name, generation, kernels, bench)
    found = Evaluation(results, loaded, rows, about)
    write_report(found, Path(out))
    return found


def bench(
    plan: Plan | PathLike, pipeline: str, *, out: PathLike | None = None, pairs: int = 11,
    against: Sequence[str] = ("float32", "bfloat16", "float16"), compiled: bool = False, batch: int = 1,
    allow_mismatch: bool = False, guidance: float | None = None,
) -> Timings:  # fmt: skip
    """How long one denoiser call takes with the plan's kernels, and in the float types `against`: medians of `pairs`
    calls in turn, into the JSON file `out` if it is given.

    compiled: everything by `torch.compile`, too, which takes minutes; batch: prompts a call. Raises UserError,
    PlanError, KernelError.
    """
    from bitplan.planner.applied.pipeline import check_model
    from bitplan.planner.evaluation.speed import (
        Timings,
        conditions,
        record_call,
        time_planned_layers,
        time_variants,
        variants_of,
        write_timings,
    )
    from bitplan.planner.pipelines.sources import float_components, generation_of, load_subject
    from bitplan.planner.pipelines.subject import conditions_of

    loaded, generation = plan_in(plan), generation_of(pipeline, 1, guidance, 0)
    arguments.check_bench(against, pairs, out)
    subject = load_subject(pipeline, generation, dtype_of([loaded]))
    parts = float_components(subject, loaded.model["components"])
    check_model(loaded, parts, allow_mismatch)
    name, denoiser = next(iter(parts.items()))
    call = record_call(subject, denoiser, conditions_of(subject, None, batch, held_out=True))
    variants = variants_of((name, denoiser), loaded, call, against, compiled)
    found = Timings(
        time_variants(variants, pairs), conditions(pipeline, batch, pairs, generation),
        time_planned_layers(name, loaded, variants, pairs, (batch, generation.guidance)),
    )  # fmt: skip
    if out is not None:
        write_timings(found, Path(out))
    return found
