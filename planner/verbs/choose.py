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

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitplan.planner.choice.alternates import JOINT, Losses
from bitplan.planner.choice.joint import losses_of_plan
from bitplan.planner.choice.published import plan_in
from bitplan.planner.files import PathLike
from bitplan.planner.pipelines.conditions import conditions_in
from bitplan.planner.profiles.profile import Profile
from bitplan.planner.verbs import parameters as arguments
from bitplan.plans.plan import Plan

if TYPE_CHECKING:
    from bitplan.planner.choice.joint import Prediction
    from bitplan.planner.choice.verify import Verdict
    from bitplan.planner.choice.why import Why
    from bitplan.planner.pipelines.subject import Subject
    from bitplan.planner.views.view import View


def judge(
    plans: Sequence[Plan], store: Profile, rerank: str, on: tuple[PathLike | Sequence[str] | None, str | None, str]
) -> Callable[[Plan], Losses]:
    """What tells the losses of a whole plan: its responses, or a run of the pipeline `rerank`.

    on: prompts, CLIPModel and kernels of such a run. Raises UserError, PlanError.
    """
    if rerank == JOINT:
        return lambda plan: losses_of_plan(plan, store)
    from bitplan.planner.evaluation.rerank import measurer  # needs torch

    prompts, clip, kernels = on
    return measurer(plans, rerank, conditions_in(prompts), clip, kernels)


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
    from bitplan.planner.choice.alternates import check_asked, rank, save_candidates
    from bitplan.planner.choice.answer import Search, make_plans
    from bitplan.planner.choice.evidence import read_evidence
    from bitplan.planner.choice.request import Request
    from bitplan.planner.profiles.profile import open_profile
    from bitplan.solvers.strategies import Effort

    request = Request(memory, latency, bits, caps or {}, objective, slack, pins or {}, kernels, confidence)
    with open_profile(profile) as store:
        check_asked(bool(uniform), candidates, rerank, store)
        search = Search(Effort(time_limit, gap, backend), solver, candidates, distance, worth)
        plans = make_plans(store, request, search, uniform)
        save_candidates(plans, Path(out))
        if not rerank:
            return plans[0]
        measure = judge(plans, store, rerank, (prompts, clip, kernels))
        return rank(plans, Path(out), read_evidence(store), measure)


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
    from bitplan.planner.choice.limits import settled
    from bitplan.planner.choice.request import Request
    from bitplan.planner.profiles.profile import open_profile
    from bitplan.planner.views.profile_view import load_profile_view
    from bitplan.planner.views.run import sweep_into
    from bitplan.planner.views.sweep import Sweep
    from bitplan.solvers.strategies import Effort

    arguments.check_painted(images, paint, count)
    request = Request(memory, latency, bits, caps or {}, objective, slack, pins or {}, kernels, confidence)
    asked, effort = Sweep(by, points, start, stop, spacing), Effort(time_limit, gap, backend)
    with open_profile(profile) as store:
        known = load_profile_view(store, confidence)
        view = sweep_into(Path(out), store, known, settled(known.evidence, request), asked, effort)
        if not images:
            return view
        from bitplan.planner.views.painting import SweepPaintOptions, paint_view

        conditions = conditions_in(prompts)
        job = SweepPaintOptions(pipeline or view.model["name"], images, paint, conditions, count, seed, kernels, clip)
        return paint_view(view, Path(out), store, known, job)


def verify(
    plan: Plan | PathLike, profile: PathLike, *, prove: bool = False, time_limit: float = 60.0,
    backend: str | None = None,
) -> Verdict:  # fmt: skip
    """Whether the plan is what it says, checked in exact arithmetic against its profile, without the solver.

    prove: solve it again as one integer program and compare; time_limit, backend: of that. `failures` of what is
    returned is empty where all is right. Raises UserError for another model's profile.
    """
    from bitplan.planner.choice.verify import check
    from bitplan.planner.profiles.profile import open_profile
    from bitplan.solvers.strategies import Effort

    with open_profile(profile) as store:
        return check(plan_in(plan), store, Effort(time_limit, 0.0, backend) if prove else None)


def predict(plan: Plan | PathLike, profile: PathLike) -> dict[str, Prediction]:
    """What a whole plan does to each metric: the sum of its layers' losses, and with their interactions.

    From the responses in a profile made by probes, in a moment. Raises UserError, PlanError.
    """
    from bitplan.planner.choice.joint import predict_plan
    from bitplan.planner.profiles.profile import open_profile

    with open_profile(profile) as store:
        return predict_plan(plan_in(plan), store)


def why(
    plan: Plan | PathLike, profile: PathLike, layer: str, *, time_limit: float = 60.0, gap: float = 0.0,
    backend: str | None = None,
) -> Why:  # fmt: skip
    """Why `layer` got its scheme: what each other one would cost. time_limit, gap: of each. Raises UserError."""
    from bitplan.planner.choice.why import explain_layer
    from bitplan.planner.profiles.profile import open_profile
    from bitplan.solvers.strategies import Effort

    with open_profile(profile) as store:
        return explain_layer(plan_in(plan), store, layer, Effort(time_limit, gap, backend))
