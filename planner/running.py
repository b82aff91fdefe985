"""The verbs that end in a pipeline or in pictures: a plan put in, taken out, painted with, evaluated, timed and shown.

Part of the story in `planner.workflow`, which has their names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner import arguments
from planner.arguments import PathLike

if TYPE_CHECKING:  # each verb imports what it needs when it runs
    from planner.benching import Timings
    from planner.evaluation_report import Evaluation
    from planner.subject import Subject
    from planner.verdicts import Check
    from plans.plan import Plan


def apply(
    pipe: Any, plan: Plan | PathLike, *, kernels: str = "int", allow_mismatch: bool = False, keep_originals: bool = True
) -> Any:
    """The same diffusers pipeline object with its layers swapped as the plan says; `restore` undoes it.

    keep_originals=False frees each float weight as it goes, and with it the way back.
    """
    from planner.applying import apply_plan

    arguments.check_kernels(kernels)
    apply_plan(pipe, arguments.plan_in(plan), kernels, allow_mismatch, keep_originals)
    return pipe


def restore(pipe: Any) -> Any:
    """The same pipeline object with its float layers back."""
    from planner.applying import restore_pipeline

    restore_pipeline(pipe)
    return pipe


def config(
    plan: Plan | PathLike, component: str | None = None, *, kernels: str = "int", allow_mismatch: bool = False
) -> Any:
    """What `DiffusionPipeline.from_pretrained(..., quantization_config=)` takes to quantize as the plan says while it
    loads, weight by weight; with `component`, such as `unet`, what that model's own `from_pretrained` takes.

    The result is that of `apply` on the float32 pipeline, to the bit; kernels, allow_mismatch: as there.
    """
    from planner.loading.by_plan import loading_config

    arguments.check_kernels(kernels)
    return loading_config(arguments.plan_in(plan), component, kernels, allow_mismatch)


def paint(
    plan: Plan | PathLike | None, pipeline: str | Subject, prompt: Sequence[Any], out: PathLike, *,
    prompts: PathLike | None = None, count: int = 1, kernels: str = "int", allow_mismatch: bool = False,
    steps: int | None = None, guidance: float | None = None, seed: int = 0, call: Mapping[str, Any] | None = None,
) -> list[Path]:  # fmt: skip
    """Load the pipeline with the plan in it, and write one picture a prompt: `out`, or `out` with -1, -2, ...

    prompt: prompts or other conditions, else those of the file `prompts`, else `count` of the pipeline's own; other
    outputs than pictures are written as `.gif` and `.npy`; call: as in `profile`.
    """
    from planner.applying import load_planned
    from planner.saving import check_place, save_outputs
    from planner.subject import conditions_of, output_of, run_subject

    generation = arguments.generation_of(pipeline, steps, guidance, seed, call)
    check_place(Path(out))
    arguments.check_kernels(kernels)
    given = list(prompt) or arguments.conditions_in(prompts)
    loaded = None if plan is None else arguments.plan_in(plan)
    subject = load_planned(pipeline, loaded, generation, kernels, allow_mismatch)
    outputs = run_subject(subject, conditions_of(subject, given, count, held_out=True), seed, batch=16)
    return save_outputs(outputs, output_of(subject, outputs), Path(out))


def explore(
    profile: PathLike, *, plans: PathLike | None = None, pipeline: str | None = None, port: int = 0,
    open: bool = False, kernels: str = "int", steps: int | None = None, guidance: float | None = None,
) -> None:  # fmt: skip
    """Serve a page on this machine alone, with the solver behind it, until interrupted; its address is printed.

    plans: the folder where the page saves plans, else the profile's own; pipeline: what the page paints with, else what
    the profile was measured on, and as it was; port: 0 for any that is free; open: also in a browser; kernels: as in
    `solve`. Raises UserError.
    """
    from planner.exploring import serve
    from planner.showing.painter import Studio

    arguments.check_kernels(kernels)
    studio = Studio(pipeline, steps, guidance, kernels)
    serve(Path(profile), None if plans is None else Path(plans), studio, port, open)


def evaluate(
    plans: Sequence[PathLike], pipeline: str | Subject, out: PathLike, *,
    prompts: PathLike | Sequence[Any] | None = None, count: int = 64, kernels: str = "int", blocks: bool = True,
    allow_mismatch: bool = False, clip: str | None = None, steps: int | None = None, guidance: float | None = None,
    seed: int = 1000, call: Mapping[str, Any] | None = None, metrics: Sequence[str] = (),
    offload_folder: PathLike | None = None,
) -> Evaluation:  # fmt: skip
    """Predicted beside measured for each plan, on held-out prompts, into `report.md`, `.json` and `images.png` of the
    folder `out`. blocks: also each block's layers alone; the rest as in `profile`."""
    from planner import evaluating, evaluation_report
    from planner.applying import check_model
    from planner.pipelines import float_components
    from planner.progress import bar
    from planner.runs import make_folder
    from planner.subject import conditions_of, load_subject

    arguments.check_kernels(kernels)
    loaded = arguments.plans_in(plans)
    make_folder(Path(out))
    generation = arguments.generation_of(pipeline, steps, guidance, seed, call)
    given = arguments.conditions_in(prompts)
    subject = load_subject(pipeline, generation, arguments.dtype_of(loaded.values()), offload_folder)
    for plan in loaded.values():
        check_model(plan, float_components(subject, plan.model["components"]), allow_mismatch)
    chosen = conditions_of(subject, given, count, held_out=True)
    bench = evaluating.build_bench(subject, list(plan.schemes), chosen, seed, metrics, clip)
    results = [evaluating.evaluate_full(bench)]
    results += [
        evaluating.evaluate_plan(bench, plan, kernels, name)
        for name, plan in bar(loaded.items(), "plans", len(loaded), "plan")
    ]
    rows = {name: evaluating.block_rows(bench, plan, kernels) for name, plan in loaded.items()} if blocks else {}
    about = evaluating.conditions(subject.name, generation, kernels, bench)
    found = evaluation_report.Evaluation(results, loaded, rows, about)
    evaluation_report.write_report(found, Path(out))
    return found


def check(
    profile: PathLike, pipeline: str | Subject, *, sample: int = 24, tolerance: float = 0.25,
    plan: Plan | PathLike | None = None, prompts: PathLike | Sequence[Any] | None = None, clip: str | None = None,
    engine: str = "local", address: str | None = None, workers: int | None = None, seed: int = 0,
    out: PathLike | None = None, offload_folder: PathLike | None = None,
) -> Check:  # fmt: skip
    """Whether the profile of a base model is still good for a fine-tune of it: `sample` (layer, scheme) are measured on
    `pipeline` as the profile was, and compared.

    tolerance: by which share the old plans' losses may be above the best of the same bytes; plan: judge the choices of
    this plan of the profile alone; prompts: those that the profile was measured on, where it holds only digests of
    them and the pipeline does not bring them; clip, engine, address, workers, offload_folder: as in `profile`; seed: of
    the bootstrap; out: a JSON file for all of it. Raises UserError for a pipeline of other layers, PlanError.
    """
    from planner import rechecking
    from planner.engines import Site
    from planner.store import open_profile

    arguments.check_sample(sample, tolerance, out)
    judged, given = None if plan is None else arguments.plan_in(plan), arguments.conditions_in(prompts)
    site = Site(address, workers)
    asked = rechecking.Asked(sample, tolerance, judged, clip, seed, given, engine, site, offload_folder)
    with open_profile(profile) as store:
        found = rechecking.check_profile(store, pipeline, asked)
    if out is not None:
        Path(out).write_text(json.dumps(found.to_json(), indent=1) + "\n", "utf-8")
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
    from planner import benching
    from planner.applying import check_model
    from planner.pipelines import float_components
    from planner.subject import conditions_of, load_subject

    loaded, generation = arguments.plan_in(plan), arguments.generation_of(pipeline, 1, guidance, 0)
    arguments.check_bench(against, pairs, out)
    subject = load_subject(pipeline, generation, arguments.dtype_of([loaded]))
    parts = float_components(subject, loaded.model["components"])
    check_model(loaded, parts, allow_mismatch)
    name, denoiser = next(iter(parts.items()))
    call = benching.record_call(subject, denoiser, conditions_of(subject, None, batch, held_out=True))
    variants = benching.variants_of((name, denoiser), loaded, call, against, compiled)
    found = benching.Timings(
        benching.time_variants(variants, pairs), benching.conditions(pipeline, batch, pairs, generation),
        benching.time_planned_layers(name, loaded, variants, pairs, (batch, generation.guidance)),
    )  # fmt: skip
    if out is not None:
        benching.write_timings(found, Path(out))
    return found


def report(runs: Sequence[PathLike], out: PathLike) -> Path:
    """The page `out`, one HTML file that needs no network, of the folders that `sweep` wrote: the trade-off, the plans
    and their pictures, and the model as a map of its layers. Raises UserError."""
    from planner.showing.html import write_report

    write_report([Path(folder) for folder in runs], Path(out))
    return Path(out)
