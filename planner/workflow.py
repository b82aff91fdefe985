"""The story on one page: each function is a verb, reads files and writes files, and is a sub-command of the same name.

pipeline -> layer graph -> calibration -> costs and sensitivities -> X.profile         profile
X.profile + budgets -> problem -> solution -> P.plan.yaml                              solve
X.profile + limits of one column -> plans, and their pictures -> RUN                   sweep
RUNs -> one page that shows their plans, pictures and layers                           report
X.profile + a browser -> plans solved as budgets are dragged, saved, painted           explore
P.plan.yaml + X.profile -> does it hold, why is it so, what does it do as a whole      verify, why, predict
P.plan.yaml + pipeline -> swapped layers, fake or real kernels -> images               apply, restore, config
P.plan.yaml + pipeline + held-out prompts -> predicted beside measured                 evaluate
X.profile + a fine-tune -> does the old ranking still hold                             check
P.plan.yaml + pipeline -> milliseconds of a denoiser call                              bench
P.plan.yaml + the model's shapes -> another tool's configuration                       export
a configuration -> layers, multiply-adds, bytes; X.profile of elsewhere -> costs here  inspect, cost
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner import arguments
from planner.arguments import KERNELS as KERNELS
from planner.arguments import PathLike
from planner.errors import UserError
from planner.progress import course_of
from planner.running import apply as apply
from planner.running import bench as bench
from planner.running import check as check
from planner.running import config as config
from planner.running import evaluate as evaluate
from planner.running import explore as explore
from planner.running import paint as paint
from planner.running import report as report
from planner.running import restore as restore

if TYPE_CHECKING:  # each verb imports what it needs when it runs: solving needs no torch
    from planner.equipment import Equipment
    from planner.explaining import Why
    from planner.inspecting import Inspected
    from planner.predicting import Prediction
    from planner.showing.view import View
    from planner.subject import Subject
    from planner.targets.base import Export
    from planner.verifying import Verdict
    from plans.plan import Plan

DEFAULT_SCHEMES = ("w8a8", "w6a8", "w5ma8", "w4ma8", "w3ma8", "w2ma8", "w4g64ma8", "w3g64ma8", "w2g64ma8")


@course_of("profile")
def profile(
    pipeline: str | Subject, out: PathLike, *,
    prompts: PathLike | Sequence[Any] | None = None, count: int = 8, schemes: Sequence[str] = DEFAULT_SCHEMES,
    components: Sequence[str] = (), clip: str | None = None, timesteps: int = 4, steps: int | None = None,
    guidance: float | None = None, seed: int = 0, method: str = "probes", probes: int = 4, checks: int | None = None,
    time: str | None = None, around: str = "25%", engine: str = "local", address: str | None = None,
    workers: int | None = None, part: str | None = None, dtype: str = arguments.FLOAT32,
    call: Mapping[str, Any] | None = None, metrics: Sequence[str] = (), offload_folder: PathLike | None = None,
) -> Path:  # fmt: skip
    """Measure what each scheme does to each layer of `pipeline`, into the file `out`; goes on where one stopped.

    pipeline: `scenes`, a folder, a hub id, `package.module:name` of a `Subject`, or a Subject; prompts: a file with one
    a line or a YAML list of what the pipeline's call takes, or such a list, else `count` built-in ones; timesteps:
    calls of each denoiser judged by their own output; clip: the CLIPModel that measures alignment; call: what else the
    pipeline's call is given, such as its height; metrics: more of them, built-in ones or `package.module:name`.
    method: a name of `planner.methods.METHODS`; probes: of each metric of the image; checks: how many estimates are
    measured exhaustively, too; time: `10m`, spent where a plan of the memory `around` is undecided.
    engine: a name of `planner.engines.ENGINES`; address, workers: of its cluster; part: `2/3` measures the second third
    alone, for `merge`; dtype: of the pipeline, `float32` or `bfloat16`, which takes half the memory; offload_folder: on
    a disk, where weights that are converted lie instead of in memory.
    """
    from planner import profiling
    from planner.conditions import labels_of
    from planner.subject import conditions_of, holding, load_subject
    from planner.tracing import examine

    generation = arguments.generation_of(pipeline, steps, guidance, seed, call)
    site, share, checks = profiling.Site(address, workers), arguments.part_of(part), arguments.checks_of(checks, dtype)
    way = profiling.Way(method, engine, site, share, checks, arguments.seconds_of(time), around, offload_folder)
    profiling.check_way(schemes, dtype, Path(out), way)
    given = arguments.conditions_in(prompts)
    subject = load_subject(pipeline, generation, dtype, offload_folder)
    chosen = conditions_of(subject, given, count)
    settings = profiling.Settings(
        subject.name, labels_of(chosen), tuple(schemes), generation, timesteps, probes, tuple(components), clip, dtype,
        tuple(metrics),
    )  # fmt: skip
    profiling.run_profile(examine(holding(subject, chosen), chosen, seed, components), settings, Path(out), way)
    return Path(out)


def solve(
    profile: PathLike, out: PathLike, *,
    memory: str | None = None, latency: str | None = None, bits: float | None = None,
    caps: Mapping[str, str] | None = None, objective: str = "both", slack: float = 0.0, uniform: str | None = None,
    pins: Mapping[str, str] | None = None, kernels: str = "int", confidence: float | None = None,
    time_limit: float = 60.0, gap: float = 0.0, solver: str = "exact", backend: str | None = None, worth: bool = False,
    candidates: int = 1, distance: int = 1, rerank: str | None = None,
    prompts: PathLike | Sequence[str] | None = None, clip: str | None = None,
) -> Plan:  # fmt: skip
    """Choose one scheme a layer and write the plan file `out`.

    memory, latency: `35%` of full precision, or an amount with its unit; bits: mean bits a weight; caps: column -> the
    most it may sum to, or a scheme whose uniform plan sets the bound; objective: quality, alignment, both, weights, or
    `lexicographic:alignment,quality`, where what comes first may then be worse by the share `slack`; uniform: take this
    scheme everywhere instead of solving; pins: layer or `role:NAME` -> scheme; confidence: plan with upper bounds of
    the losses; gap: share of the objective that may stay unproven; worth: also what more of each budget would save;
    candidates: so many plans, any two of which differ in `distance` layers, as P.1.plan.yaml and so on; rerank: the
    pipeline on which they are measured, or `joint` for estimates with interactions; the best becomes `out`. Raises
    InfeasibleError.
    """
    from planner import candidates as several
    from planner import solving
    from planner.store import open_profile
    from solvers.strategies import Effort

    arguments.check_kernels(kernels)
    request = solving.request_of(objective, memory, latency, bits, caps, pins, kernels == "int", confidence, slack)
    with open_profile(profile) as store:
        several.check_asked(bool(uniform), candidates, rerank, store)
        search = solving.Search(Effort(time_limit, gap, backend), solver, candidates, distance, worth)
        plans = solving.make_plans(store, request, search, uniform)
        several.save_candidates(plans, Path(out))
        if not rerank:
            return plans[0]
        measure = several.judge(plans, store, rerank, (prompts, clip, kernels))
        return several.rank(plans, Path(out), solving.read_evidence(store), measure)


def sweep(
    profile: PathLike, out: PathLike, *, by: str = "memory", points: int = 40, start: str | None = None,
    stop: str | None = None, spacing: str | None = None,
    memory: str | None = None, latency: str | None = None, bits: float | None = None,
    caps: Mapping[str, str] | None = None, objective: str = "both", slack: float = 0.0,
    pins: Mapping[str, str] | None = None, kernels: str = "int", confidence: float | None = None,
    time_limit: float = 60.0, gap: float = 0.0, backend: str | None = None,
    images: int = 0, paint: int | None = None, pipeline: str | Subject | None = None,
    prompts: PathLike | Sequence[Any] | None = None, count: int | None = None, seed: int = 1000,
    clip: str | None = None,
) -> View:  # fmt: skip
    """The best plan at each of `points` limits of one column, as `sweep.json` and plan files in the folder `out`; with
    `images`, also pictures and measured losses. The same call goes on where one stopped.

    by: memory, latency, bits or a loss; start, stop: its ends, written as a budget on it [the smallest that can be
    reached, and that of the best plan without a limit]; spacing: `log` or `linear` [even ratios where both ends are
    positive]; budgets and the rest as in `solve`, time_limit for each limit.
    images: so many held-out prompts, or `prompts`, are painted in full precision, by the plans of `paint` limits [all],
    and by the uniform plans between them; pipeline: what paints [the profile's own]; count: prompts on which losses are
    measured [16]; seed, clip: as in `evaluate`. Raises UserError, InfeasibleError.
    """
    from planner import runs, solving, sweeping
    from planner.showing.seeing import know
    from planner.store import open_profile
    from solvers.strategies import Effort

    arguments.check_kernels(kernels)
    arguments.check_painted(images, paint, count)
    request = solving.request_of(objective, memory, latency, bits, caps, pins, kernels == "int", confidence, slack)
    asked, effort = sweeping.Sweep(by, points, start, stop, spacing), Effort(time_limit, gap, backend)
    with open_profile(profile) as store:
        known = know(store, confidence)
        view = runs.sweep_into(Path(out), store, known, solving.settled(known.evidence, request), asked, effort)
        if not images:
            return view
        from planner import painting

        conditions = arguments.conditions_in(prompts)
        job = painting.Job(pipeline or view.model["name"], images, paint, conditions, count, seed, kernels, clip)
        return painting.paint_view(view, Path(out), store, known, job)


def verify(
    plan: Plan | PathLike, profile: PathLike, *, prove: bool = False, time_limit: float = 60.0,
    backend: str | None = None,
) -> Verdict:  # fmt: skip
    """Whether the plan is what it says, checked in exact arithmetic against its profile, without the solver.

    prove: solve it again as one integer program and compare; time_limit, backend: of that. `failures` of what is
    returned is empty where all is right. Raises UserError for another model's profile.
    """
    from planner import verifying
    from planner.store import open_profile
    from solvers.strategies import Effort

    with open_profile(profile) as store:
        return verifying.check(arguments.plan_in(plan), store, Effort(time_limit, 0.0, backend) if prove else None)


def predict(plan: Plan | PathLike, profile: PathLike) -> dict[str, Prediction]:
    """What a whole plan does to each metric: the sum of its layers' losses, and with their interactions.

    From the responses in a profile made by probes, in a moment. Raises UserError, PlanError.
    """
    from planner.predicting import predict_plan
    from planner.store import open_profile

    with open_profile(profile) as store:
        return predict_plan(arguments.plan_in(plan), store)


def why(
    plan: Plan | PathLike, profile: PathLike, layer: str, *, time_limit: float = 60.0, gap: float = 0.0,
    backend: str | None = None,
) -> Why:  # fmt: skip
    """Why `layer` got its scheme: what each other one would cost. time_limit, gap: of each. Raises UserError."""
    from planner import explaining
    from planner.store import open_profile
    from solvers.strategies import Effort

    with open_profile(profile) as store:
        return explaining.explain_layer(arguments.plan_in(plan), store, layer, Effort(time_limit, gap, backend))


def merge(profiles: Sequence[PathLike], out: PathLike, *, costs: PathLike | None = None) -> Path:
    """Join profiles that were measured apart, such as by `profile(..., part=)`, into the new file `out`.

    costs: whose costs to take, where several have some that differ. Raises UserError where they do not belong together.
    """
    from planner import merging

    merging.merge([Path(path) for path in profiles], Path(out), None if costs is None else Path(costs))
    return Path(out)


def import_profile(format: str, folder: PathLike, out: PathLike) -> str:
    """Make the profile `out` of what another tool measured; a line on what had to be decided is returned.

    format: a name of `planner.foreign.FORMATS`, such as `mixdq`; folder: where its files lie.
    """
    from planner import foreign

    return foreign.import_folder(format, Path(folder), Path(out))


def export(
    plan: Plan | PathLike, to: str, out: PathLike, *, model: PathLike | None = None, approximate: bool = False
) -> tuple[Export, ...]:
    """Write the plan as the configuration of another tool, a name of `planner.targets.TARGETS`: one file a component.

    model: the plan's profile, or a pipeline, else the pipeline that the plan names; approximate: take the nearest that
    the tool can express, listed in `changes`. Raises UserError where the tool cannot express some layers' schemes.
    """
    from planner import targets

    return targets.export_plan(
        arguments.plan_in(plan), to, Path(out), None if model is None else str(model), approximate
    )


def inspect(
    file: PathLike | None = None, profile: PathLike | None = None, *, config: PathLike | None = None,
    schemes: Sequence[str] = DEFAULT_SCHEMES, components: Sequence[str] = (), width: int | None = None,
    height: int | None = None, frames: int | None = None, tokens: int | None = None, batch: int = 1,
) -> Inspected:  # fmt: skip
    """What a profile or a plan file holds; or, of a configuration alone: layers, parameters, multiply-adds, bytes.

    profile: of a plan, also tells what it gives to each role of layers.
    config: a component's config.json, or a pipeline's folder, where no weights need be; schemes: whose bytes to tell;
    components: of a pipeline; width, height (px), frames, tokens (of text), batch: of the one call whose multiply-adds
    are counted. `str` of what is returned is the text, `facts` are the numbers.
    """
    from planner import inspecting

    if (file is None) == (config is None):
        raise UserError("inspect takes a profile or a plan, or else --config; give one of them")
    if file is not None:
        return inspecting.inspect_file(Path(file), None if profile is None else Path(profile))
    from planner.meta import text
    from planner.meta.outline import Size

    size = Size(width, height, frames, tokens, batch)
    return text.describe(str(config), components, size, schemes)


def cost(
    profile: PathLike, out: PathLike, *, config: PathLike | None = None, width: int | None = None,
    height: int | None = None, frames: int | None = None, tokens: int | None = None, batch: int = 1,
) -> Path:  # fmt: skip
    """The profile `out`: `profile`, made elsewhere, with the costs of this machine, timed a layer at a time.

    config: as in `inspect`, where the layers' shapes and calls come from, at the size that the rest says; else they are
    the profile's own. The model is neither needed nor built. Raises UserError where they are of different models.
    """
    from planner.meta.outline import Size
    from planner.meta.timing import retime

    size = Size(width, height, frames, tokens, batch)
    retime(Path(profile), Path(out), None if config is None else str(config), size)
    return Path(out)


def doctor() -> Equipment:
    """Which kernels, solvers, metrics and extras are available here, or why not: `str` is a table."""
    from planner.equipment import equipment

    return equipment()
