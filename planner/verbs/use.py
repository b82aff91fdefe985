"""The verbs that run a pipeline with a plan: apply it, undo it, paint, evaluate, time, and export it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitplan.planner.choice.request import KERNELS, check_kernels
from bitplan.planner.files import PathLike
from bitplan.planner.verbs import checks
from bitplan.planner.verbs.parameters import BASELINES

BATCH = 16  # pictures of one call, which are written before the next

if TYPE_CHECKING:
    from bitplan.planner.evaluation.report import Evaluation
    from bitplan.planner.evaluation.speed import Timings
    from bitplan.planner.interop.exports import Exports
    from bitplan.planner.pipelines.subject import Subject
    from bitplan.plans.plan import Plan


def export(
    plan: Plan | PathLike, to: str, out: PathLike, *, model: PathLike | None = None, approximate: bool = False,
    variant: str | None = None,
) -> Exports:  # fmt: skip
    """Write the plan as the configuration of another tool, one file for each component, and say in how many bytes the
    tool holds the layers, and whether they are within the plan's budget.

    Args:
        plan: a plan, its file, or the name of a published plan.
        to: a name of `bitplan.planner.targets.TARGETS`.
        out: the file; with several components, each file has -COMPONENT added to its name.
        model: source of the layers' shapes: the plan's profile, a pipeline, or a configuration; None for the pipeline
            that the plan names.
        approximate: take the nearest scheme that the tool can express, and list these changes in the result; a plan
            made with the `target` of that name needs none.
        variant: variant of the weights' files of a pipeline; None for the one that was profiled.

    Raises UserError where the tool cannot express the schemes of some layers.
    """
    from bitplan.planner.choice.published import plan_in
    from bitplan.planner.interop.export import export_plan

    source = None if model is None else str(model)
    return export_plan(plan_in(plan), to, Path(out), source, approximate, variant)


def plans_in(paths: Sequence[PathLike]) -> dict[str, Plan]:
    """File name -> plan. Raises UserError where two names are equal or plans cannot be compared, PlanError."""
    from bitplan.planner.choice.published import plan_in
    from bitplan.planner.evaluation.report import check_comparable

    plans = {Path(path).name.removesuffix(".yaml").removesuffix(".plan"): plan_in(path) for path in paths}
    check_comparable(plans, len(paths))
    return plans


def apply(
    pipe: Any, plan: Plan | PathLike, *, kernels: str = KERNELS[0], allow_mismatch: bool = False,
    keep_originals: bool = True,
) -> Any:  # fmt: skip
    """Swap the layers of a diffusers pipeline as the plan says, and return the same pipeline. `restore` undoes it.

    Args:
        pipe: the pipeline.
        plan: a plan, its file, or the name of a published plan.
        kernels: `int` runs only real kernels; `fake` simulates.
        allow_mismatch: accept a plan of another model with the same layers.
        keep_originals: keep the float weights; False frees each as soon as it is converted, and `restore` cannot work.

    Raises UserError, PlanError, KernelError.
    """
    from bitplan.planner.applied.pipeline import apply_plan
    from bitplan.planner.choice.published import plan_in

    check_kernels(kernels)
    apply_plan(pipe, plan_in(plan), kernels, allow_mismatch, keep_originals)
    return pipe


def restore(pipe: Any) -> Any:
    """Put the float layers back into a pipeline, and return the same pipeline.

    Args:
        pipe: a pipeline that `apply` changed.
    """
    from bitplan.planner.applied.pipeline import restore_pipeline

    restore_pipeline(pipe)
    return pipe


def config(
    plan: Plan | PathLike, component: str | None = None, *, kernels: str = KERNELS[0], allow_mismatch: bool = False
) -> Any:
    """Make the configuration that quantizes as the plan says while `from_pretrained` loads, weight by weight. The
    result equals that of `apply` on the float32 pipeline, to the bit.

    Args:
        plan: a plan, its file, or the name of a published plan.
        component: None for `DiffusionPipeline.from_pretrained(..., quantization_config=)`, or one component, such as
            `unet`, for that model's own `from_pretrained`.
        kernels: as in `apply`.
        allow_mismatch: as in `apply`.
    """
    from bitplan.planner.applied.loading import loading_config
    from bitplan.planner.choice.published import plan_in

    check_kernels(kernels)
    return loading_config(plan_in(plan), component, kernels, allow_mismatch)


def paint(
    plan: Plan | PathLike | None, pipeline: str | Subject, prompt: Sequence[Any], out: PathLike, *,
    prompts: PathLike | None = None, count: int = 1, kernels: str = KERNELS[0], allow_mismatch: bool = False,
    steps: int | None = None, guidance: float | None = None, seed: int = 0, call: Mapping[str, Any] | None = None,
    variant: str | None = None,
) -> list[Path]:  # fmt: skip
    """Load the pipeline with the plan in it, and write one picture for each prompt: `out`, or `out` with -1, -2, ...

    Args:
        plan: a plan, its file, or the name of a published plan; None for full precision.
        pipeline: as in `profile`.
        prompt: prompts, or the arguments of calls.
        out: the picture; outputs that are not pictures are written as `.gif` and `.npy`.
        prompts: a file of prompts, where `prompt` is empty.
        count: number of built-in prompts, where neither is given.
        kernels: as in `apply`.
        allow_mismatch: as in `apply`.
        steps: as in `profile`.
        guidance: as in `profile`.
        seed: as in `profile`.
        call: as in `profile`.
        variant: variant of the weights' files; None for the one that was profiled.

    Returns the paths of the pictures. Raises UserError, PlanError, KernelError.
    """
    from bitplan.planner.applied.pipeline import load_planned
    from bitplan.planner.choice.published import plan_in
    from bitplan.planner.pipelines.conditions import conditions_in
    from bitplan.planner.pipelines.outputs import check_output, save_outputs
    from bitplan.planner.pipelines.sources import generation_of
    from bitplan.planner.pipelines.subject import conditions_of, output_of, run_subject
    from bitplan.planner.progress import bar

    generation = generation_of(pipeline, steps, guidance, seed, call)
    check_output(Path(out))
    check_kernels(kernels)
    own = list(prompt) or conditions_in(prompts)
    loaded = None if plan is None else plan_in(plan)
    subject = load_planned(pipeline, loaded, generation, kernels, allow_mismatch, variant)
    conditions = conditions_of(subject, own, count, held_out=True)
    starts, kind, paths = range(0, len(conditions), BATCH), "", list[Path]()
    for at in bar(starts, "pictures", len(starts) if len(starts) > 1 else 0, "batch"):
        outputs = run_subject(subject, conditions[at : at + BATCH], seed + at)
        kind = kind or output_of(subject, outputs)
        paths += save_outputs(outputs, kind, Path(out), (at, len(conditions)))
    return paths


def evaluate(
    plans: Sequence[PathLike], pipeline: str | Subject, out: PathLike, *,
    prompts: PathLike | Sequence[Any] | None = None, count: int = 64, kernels: str = KERNELS[0], blocks: bool = True,
    allow_mismatch: bool = False, clip: str | None = None, steps: int | None = None, guidance: float | None = None,
    seed: int = 1000, call: Mapping[str, Any] | None = None, metrics: Sequence[str] = (),
    offload_folder: PathLike | None = None, variant: str | None = None,
) -> Evaluation:  # fmt: skip
    """Compare predicted and measured losses of each plan on held-out prompts, and write `report.md`, `report.json` and
    `images.png` into the folder `out`.

    Args:
        plans: plan files, or names of published plans, of the same layers.
        pipeline: as in `profile`.
        out: the folder.
        prompts: as in `profile`.
        count: number of built-in prompts, where `prompts` is None.
        kernels: as in `apply`.
        blocks: also measure each block of layers alone.
        allow_mismatch: as in `apply`.
        clip: as in `profile`.
        steps: as in `profile`.
        guidance: as in `profile`.
        seed: as in `profile`.
        call: as in `profile`.
        metrics: as in `profile`.
        offload_folder: as in `profile`.
        variant: as in `paint`.

    Raises UserError, PlanError, KernelError.
    """
    from bitplan.planner.evaluation.evaluator import EvaluatorOptions, open_evaluator
    from bitplan.planner.evaluation.plans import about, block_rows, evaluate_full, evaluate_plan
    from bitplan.planner.evaluation.report import Evaluation, write_report
    from bitplan.planner.files import make_folder
    from bitplan.planner.interrupts import keeps
    from bitplan.planner.pipelines.conditions import conditions_in
    from bitplan.planner.pipelines.sources import generation_of
    from bitplan.planner.progress import bar

    check_kernels(kernels)
    loaded = plans_in(plans)
    make_folder(Path(out))
    generation, own = generation_of(pipeline, steps, guidance, seed, call), conditions_in(prompts)
    options = EvaluatorOptions(
        pipeline, generation, own, count, metrics, clip, allow_mismatch, offload_folder, variant
    )  # fmt: skip
    evaluator = open_evaluator(options, list(loaded.values()))
    results, measured = [evaluate_full(evaluator)], about(evaluator, generation, kernels)
    for name, plan in bar(loaded.items(), "plans", len(loaded), "plan"):
        results.append(evaluate_plan(evaluator, plan, kernels, name))
        write_report(Evaluation(results, loaded, {}, measured), Path(out))
        keeps(
            f"the report on {len(results) - 1} of {len(loaded)} plans is kept in {out}; the same command begins again"
        )
    rows = {name: block_rows(evaluator, plan, kernels) for name, plan in loaded.items()} if blocks else {}
    result = Evaluation(results, loaded, rows, measured)
    write_report(result, Path(out))
    return result


def bench(
    plan: Plan | PathLike, pipeline: str | Subject, *, out: PathLike | None = None, pairs: int = 11,
    against: Sequence[str] = BASELINES, compiled: bool = False, batch: int = 1, allow_mismatch: bool = False,
    guidance: float | None = None, variant: str | None = None,
) -> Timings:  # fmt: skip
    """Time one denoiser call with the plan's kernels and in float types, as medians of calls in turn.

    Args:
        plan: a plan, its file, or the name of a published plan.
        pipeline: as in `profile`.
        out: a JSON file for the result.
        pairs: number of calls of each variant.
        against: float types to compare with.
        compiled: also time everything under `torch.compile`, which takes minutes.
        batch: prompts a call.
        allow_mismatch: as in `apply`.
        guidance: as in `profile`.
        variant: as in `paint`.

    Raises UserError, PlanError, KernelError.
    """
    from bitplan.planner.choice.published import plan_in
    from bitplan.planner.evaluation import speed
    from bitplan.planner.evaluation.evaluator import EvaluatorOptions, open_subject
    from bitplan.planner.pipelines.calling import generation_used
    from bitplan.planner.pipelines.sources import generation_of

    loaded, generation = plan_in(plan), generation_of(pipeline, None, guidance, 0)
    checks.check_bench(against, pairs)
    generation = replace(generation, steps=1, preset=True)  # the first call is timed; a Subject has its own steps
    options = EvaluatorOptions(pipeline, generation, None, batch, allow_mismatch=allow_mismatch, variant=variant)
    subject, conditions = open_subject(options, [loaded])
    name = loaded.model["components"][0]
    denoiser = subject.modules[name]
    call = speed.record_call(subject, denoiser, conditions)
    variants = speed.variants_of((name, denoiser), loaded, call, against, compiled)
    result = speed.Timings(
        speed.time_variants(variants, pairs),
        speed.conditions(subject.name, batch, pairs, generation_used(subject.run, generation)),
        speed.time_planned_layers(name, loaded, variants, pairs, (batch, generation.guidance)),
    )  # fmt: skip
    if out is not None:
        speed.write_timings(result, Path(out))
    return result
