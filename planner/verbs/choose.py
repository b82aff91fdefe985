"""The verbs that choose schemes by a profile, and that check and explain the choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitplan.planner.files import PathLike
from bitplan.planner.verbs import checks
from bitplan.planner.verbs.words import takes_request

if TYPE_CHECKING:
    from bitplan.planner.choice.joint import Predictions
    from bitplan.planner.choice.ranking import Losses
    from bitplan.planner.choice.request import Request
    from bitplan.planner.choice.verify import Verification
    from bitplan.planner.choice.why import LayerExplanation
    from bitplan.planner.pipelines.subject import Subject
    from bitplan.planner.profiles.profile import Profile
    from bitplan.planner.views.view import View
    from bitplan.plans.plan import Plan


@takes_request
def solve(
    profile: PathLike, out: PathLike, *, request: Request, uniform: str | None = None, time_limit: float = 60.0,
    gap: float = 0.0, solver: str = "exact", backend: str | None = None, worth: bool = False, candidates: int = 1,
    distance: int = 1, rerank: str | None = None, prompts: PathLike | Sequence[str] | None = None,
    clip: str | None = None, variant: str | None = None, trust: bool = False,
) -> Plan:  # fmt: skip
    """Choose one scheme for each layer and write the plan file `out`.

    Args:
        profile: the profile's file.
        out: the plan file.
        memory: bound on the weights' bytes, `35%` of full precision or an amount with its unit, such as `900MiB`.
        latency: bound on the layers' time an image, `80%` of full precision or an amount such as `120ms`.
        bits: bound on the mean bits a weight, scales included.
        caps: column -> bound on its sum: a number, or a scheme whose uniform plan sets the bound.
        objective: `quality`, `alignment`, `both`, weights such as `quality=1,nsr=0.5`, or
            `lexicographic:alignment,quality`.
        slack: share by which a lexicographic objective may worsen an earlier loss.
        pins: layer, block, pattern or `role:NAME` -> scheme, such as `unet.mid_block` or `unet.*.attn*`.
        kernels: `int` allows only schemes that a real kernel runs here; `fake` allows every scheme.
        confidence: plan with each loss at its upper bound of this confidence; None for mean losses.
        target: plan for a tool of `bitplan.planner.targets.TARGETS`: only schemes that it can load, in bytes as it
            holds them, so that `export` writes the plan as it is; None for BitPlan itself.
        uniform: give this scheme to every layer instead of solving.
        time_limit: seconds for the solver.
        gap: share of the objective that may stay unproven.
        solver: a name of `bitplan.solvers.strategies.STRATEGIES`.
        backend: a name of `bitplan.solvers.programs.backends.BACKENDS`; None for the first that is installed.
        worth: also compute what one more MiB or ms would save.
        candidates: number of plans; several are saved as P.1.plan.yaml and so on, and the best becomes `out`.
        distance: number of layers in which any two of the plans differ.
        rerank: the pipeline on which the plans are measured, or `joint` for estimates with interactions.
        prompts: prompts of that pipeline, a file or a list; None for 8 held-out ones.
        clip: the CLIPModel that measures alignment there.
        variant: variant of the weights' files of that pipeline; None for the one that was profiled.
        trust: also import and run what the profile names as `package.module:name`, such as its own metrics.

    Raises UserError, and InfeasibleError where no plan meets the budgets.
    """
    from bitplan.planner.choice.answer import Search, make_uniform
    from bitplan.planner.choice.candidates import candidate_files, solve_into
    from bitplan.planner.choice.evidence import read_evidence
    from bitplan.planner.choice.ranking import JOINT, check_candidates, rank
    from bitplan.planner.files import write_plan
    from bitplan.planner.pipelines.references import check_typed, read_names
    from bitplan.planner.profiles.profile import open_profile
    from bitplan.planner.progress import course_of

    with open_profile(profile) as store:
        check_candidates(bool(uniform), candidates, rerank, store)
        metrics = read_names(store.header()["settings"].get("metrics", ()), store.path, trust)
        if rerank not in (None, JOINT):
            check_typed(*metrics)
        if uniform:
            best = make_uniform(store, request, uniform)
            write_plan(best, Path(out))
            candidate_files(store, request, Search(), Path(out)).finish()
            return best
        search = Search(checks.effort_of(time_limit, gap, backend), solver, candidates, distance, worth)
        files = candidate_files(store, request, search, Path(out))
        with course_of("solve", patient=True) as course:
            plans = solve_into(store, request, search, files, course)
        best = plans[0]
        if rerank:
            measure = _measure(plans, store, rerank, (prompts, clip, request.kernels, metrics, variant))
            best = rank(plans, Path(out), read_evidence(store), measure)
        files.finish(plans if candidates > 1 else (), bool(rerank))
        return best


def _measure(
    plans: Sequence[Plan],
    store: Profile,
    rerank: str,
    run: tuple[PathLike | Sequence[str] | None, str | None, str, Sequence[str], str | None],
) -> Callable[[Plan], Losses]:
    """The function that returns the losses of a whole plan, by the profile's responses or by runs of the pipeline
    `rerank`. run: prompts, CLIPModel, kernels, further metrics and variant of such a run.

    Raises UserError, PlanError.
    """
    from bitplan.planner.choice.joint import losses_of_plan
    from bitplan.planner.choice.ranking import JOINT
    from bitplan.planner.pipelines.conditions import conditions_in

    if rerank == JOINT:
        return lambda plan: losses_of_plan(plan, store)
    from bitplan.planner.evaluation.rerank import RerankOptions, measurer  # needs torch

    prompts, *others = run
    return measurer(plans, RerankOptions(rerank, conditions_in(prompts), *others))


@takes_request
def sweep(
    profile: PathLike, out: PathLike, *, by: str = "memory", points: int = 40, start: str | None = None,
    stop: str | None = None, spacing: str | None = None, request: Request, time_limit: float = 60.0, gap: float = 0.0,
    backend: str | None = None, images: int = 0, paint: int | None = None, pipeline: str | Subject | None = None,
    prompts: PathLike | Sequence[Any] | None = None, count: int | None = None, seed: int = 1000,
    clip: str | None = None, variant: str | None = None, trust: bool = False,
) -> View:  # fmt: skip
    """Choose the best plan at each of several limits of one cost or loss, and write `sweep.json` and the plans into
    the folder `out`; with `images`, also pictures and measured losses. The same call continues an interrupted sweep.

    Args:
        profile: the profile's file.
        out: the folder.
        by: what varies: memory, latency, bits or a loss.
        points: number of limits.
        start: one end, written as a budget; None for the smallest value that can be reached.
        stop: the other end; None for the value of the best plan without a limit.
        spacing: `log` or `linear`; None for even ratios where both ends are positive.
        memory: as in `solve`.
        latency: as in `solve`.
        bits: as in `solve`.
        caps: as in `solve`.
        objective: as in `solve`.
        slack: as in `solve`.
        pins: as in `solve`.
        kernels: as in `solve`.
        confidence: as in `solve`.
        target: as in `solve`.
        time_limit: seconds for each limit.
        gap: share of the objective that may stay unproven.
        backend: as in `solve`.
        images: number of held-out prompts that are painted in full precision, by the plans and by the uniform plans.
        paint: number of limits at which plans paint; None for all.
        pipeline: the pipeline that paints; None for the profile's own.
        prompts: prompts to paint, a file or a list, instead of the built-in ones.
        count: number of prompts on which losses are measured; None for 16.
        seed: prompt i starts from the noise of seed + i.
        clip: the CLIPModel that measures alignment.
        variant: variant of the weights' files of the pipeline that paints; None for the one that was profiled.
        trust: also import and run what the profile names as `package.module:name`: its pipeline and metrics.

    Raises UserError, InfeasibleError.
    """
    from bitplan.planner.choice.limits import settled
    from bitplan.planner.pipelines.conditions import conditions_in
    from bitplan.planner.pipelines.references import check_typed, read_name, read_names
    from bitplan.planner.profiles.profile import open_profile
    from bitplan.planner.views.profile_view import load_profile_view
    from bitplan.planner.views.run import sweep_into
    from bitplan.planner.views.sweep import Sweep

    checks.check_painted(images, paint, count)
    limits, effort = Sweep(by, points, start, stop, spacing), checks.effort_of(time_limit, gap, backend)
    with open_profile(profile) as store:
        header, known = store.header(), load_profile_view(store, request.confidence, request.target)
        name = pipeline or read_name(header["model"]["name"], store.path, trust)
        if images:
            check_typed(name, *read_names(header["settings"].get("metrics", ()), store.path, trust))
        view = sweep_into(Path(out), store, known, settled(known.evidence, request), limits, effort)
        if not images:
            return view
        from bitplan.planner.views.painting import SweepPaintOptions, paint_view

        options = SweepPaintOptions(
            name, images, paint, conditions_in(prompts), count, seed, request.kernels, clip, trust, variant
        )
        return paint_view(view, Path(out), store, known, options)


def verify(
    plan: Plan | PathLike, profile: PathLike, *, prove: bool = False, time_limit: float = 60.0,
    backend: str | None = None,
) -> Verification:  # fmt: skip
    """Check the plan against its profile in exact arithmetic, without the solver. The result's `failures` are empty
    where the plan is right.

    Args:
        plan: a plan, its file, or the name of a published plan.
        profile: the profile that the plan was made from.
        prove: also solve again as one integer program, and compare.
        time_limit: seconds for that.
        backend: the solver for that; None for another one than the plan's own, if installed.

    Raises UserError for the profile of another model.
    """
    from bitplan.planner.choice.published import plan_in
    from bitplan.planner.choice.verify import check
    from bitplan.planner.profiles.profile import open_profile
    from bitplan.planner.progress import course_of

    with open_profile(profile) as store, course_of("verify", patient=True):
        return check(plan_in(plan), store, checks.effort_of(time_limit, 0.0, backend) if prove else None)


def predict(plan: Plan | PathLike, profile: PathLike) -> Predictions:
    """Predict what the whole plan does to each metric: the sum of its layers' losses, and with their interactions.

    Args:
        plan: a plan, its file, or the name of a published plan.
        profile: a profile that was measured by probes: its responses give the interactions.

    Raises UserError, PlanError.
    """
    from bitplan.planner.choice.joint import predict_plan
    from bitplan.planner.choice.published import plan_in
    from bitplan.planner.profiles.profile import open_profile

    with open_profile(profile) as store:
        return predict_plan(plan_in(plan), store)


def why(
    plan: Plan | PathLike, profile: PathLike, layer: str, *, time_limit: float = 60.0, gap: float = 0.0,
    backend: str | None = None,
) -> LayerExplanation:  # fmt: skip
    """Explain why a layer got its scheme: solve again with each other scheme, and compare the objectives.

    Args:
        plan: a plan, its file, or the name of a published plan.
        profile: the profile that the plan was made from.
        layer: the layer's address.
        time_limit: seconds for each scheme.
        gap: share of each objective that may stay unproven.
        backend: as in `solve`.

    Raises UserError.
    """
    from bitplan.planner.choice.published import plan_in
    from bitplan.planner.choice.why import explain_layer
    from bitplan.planner.profiles.profile import open_profile
    from bitplan.planner.progress import course_of

    with open_profile(profile) as store, course_of("why", patient=True):
        return explain_layer(plan_in(plan), store, layer, checks.effort_of(time_limit, gap, backend))
