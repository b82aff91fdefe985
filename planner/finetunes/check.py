"""Checks a profile against a fine-tune of its model: measures a small sample again and judges the old plans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bitplan.planner.choice.evidence import Evidence, members_of, read_evidence
from bitplan.planner.choice.problem import formulate
from bitplan.planner.choice.record import check_same_model, picks_of
from bitplan.planner.errors import UserError
from bitplan.planner.files import PathLike
from bitplan.planner.finetunes.ratios import ratios_of
from bitplan.planner.finetunes.verdict import Check, CheckInputs, conclude
from bitplan.planner.graph.layers import architecture_fingerprint, from_json
from bitplan.planner.measurement.engines import Cluster, engine_named
from bitplan.planner.measurement.jobs import jobs_of
from bitplan.planner.measurement.methods import check_dtype
from bitplan.planner.measurement.ranges import stored_ranges
from bitplan.planner.measurement.repeats import check_repeats
from bitplan.planner.measurement.run import setup_of
from bitplan.planner.measurement.worker import Settings, worker_of
from bitplan.planner.pipelines.additions import eagerly
from bitplan.planner.pipelines.conditions import check_pictures, labels_of
from bitplan.planner.pipelines.generation import generation_in
from bitplan.planner.pipelines.references import check_typed, read_names
from bitplan.planner.pipelines.sources import load_subject
from bitplan.planner.pipelines.subject import Subject, conditions_in, conditions_of, holding
from bitplan.planner.pipelines.traced import Traced, examine_all
from bitplan.planner.pipelines.weights import Weights
from bitplan.planner.profiles.corrections import corrections_of
from bitplan.planner.profiles.profile import Pair, Profile
from bitplan.planner.progress import bar
from bitplan.planner.scenes import CLIP_FOLDER, SCENES
from bitplan.plans.dtypes import FLOAT32
from bitplan.plans.layers.opening import opened
from bitplan.plans.plan import Plan
from bitplan.plans.scheme import parse_scheme
from bitplan.sensitivity.agreement import Compared, agreement_of, compare
from bitplan.sensitivity.calibration.ranges import ActivationRange
from bitplan.sensitivity.table import FAMILIES, Measurement
from bitplan.solvers.problem import Problem
from bitplan.solvers.questions.regret import (
    HullSteps,
    ReferencePlans,
    RegretVerdict,
    choose_sample,
    hull_steps,
    judge,
    reference_plans,
    single_plan,
)


@dataclass(frozen=True)
class CheckOptions:
    """Options of a check.

    Attributes:
        sample: number of (layer, scheme) pairs to measure.
        tolerance: share of extra loss that still counts as good.
        plan: the only plan to judge; None for plans at all budgets.
        clip: folder or hub id of the CLIPModel; None for the profile's.
        seed: of the bootstrap.
        conditions: the profile's conditions, where neither its labels nor the pipeline give them.
        engine: a name in `ENGINES`.
        cluster: where the engine finds workers.
        folder: folder for weights instead of memory; None for memory.
        trust: whether the profile's own metrics may be imported.
        variant: variant of the weights' files; None for the profile's.
    """

    sample: int
    tolerance: float
    plan: Plan | None = None
    clip: str | None = None
    seed: int = 0
    conditions: Sequence[Any] | None = None
    engine: str = "local"
    cluster: Cluster = Cluster()
    folder: PathLike | None = None
    trust: bool = False
    variant: str | None = None


def check_profile(store: Profile, pipeline: str | Subject, options: CheckOptions) -> Check:
    """Measures a sample on `pipeline` as the profile was measured, and judges the profile's plans by it.

    Raises UserError for other layers, for an unfinished profile and one of elsewhere; PlanError, MeasurementError.
    """
    settings, engine = settings_of(store, options.trust), engine_named(options.engine, options.cluster)
    if engine.distributed and not isinstance(pipeline, str):
        raise UserError(f"the workers of {engine.name} load the subject themselves; name it as package.module:name")
    evidence = read_evidence(store)
    problem = _problem(evidence)
    if options.plan is not None:
        check_same_model(options.plan, store)
    traced = _traced(store, settings, pipeline, options)
    name = pipeline if isinstance(pipeline, str) else pipeline.name
    _check_layers(store, traced, name)
    static, one = _static(store, options.plan), options.plan is not None
    inputs = CheckInputs(str(store.path), name, options.tolerance, static, one)
    if traced.fingerprint == store.header()["model"]["fingerprint"]:
        return conclude(inputs, (), (), ())
    steps, plans = _decisions(problem, evidence, options.plan)
    sample = choose_sample(steps, plans, options.sample)
    pairs = [_pair(problem, group, flat) for group, flat in sample]
    clip = options.clip or settings.clip or (str(CLIP_FOLDER) if settings.pipeline == SCENES else None)
    new = _measured(store, traced, replace(settings, pipeline=name, clip=clip), (pairs, options))
    scatters = {name: its.scatter for name, its in corrections_of(store).items()}
    compared = compare(evidence.losses.measurements, new, scatters)
    metrics = [agreement_of(compared, m, family) for m, family in evidence.metrics.items() if _has(compared, m)]
    families = [_judge_family(problem, evidence, family, ([group for group, _ in sample], pairs, compared), options)
                for family in _families(evidence, problem, options.plan)]  # fmt: skip
    return conclude(inputs, families, metrics, compared)


def _pair(problem: Problem, group: int, flat: int) -> Pair:
    """Returns the pair of a candidate, which is number `flat` of all."""
    return problem.groups[group], problem.candidates[group][flat - problem.offsets[group]]


def settings_of(store: Profile, trust: bool = False) -> Settings:
    """Returns the settings of the profile's measurement. Raises UserError for one that BitPlan did not measure, and,
    without `trust`, for metrics that would run code."""
    header = store.header()
    saved = header["settings"].items()
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in saved}
    try:
        generation = generation_in(values.pop("generation"))
        metrics = read_names(values.pop("metrics", ()), store.path, trust)
        model = header["model"]
        settings = Settings(
            model["name"], generation=generation, metrics=metrics, variant=model.get("variant"), **values
        )  # fmt: skip
    except (KeyError, TypeError):
        raise UserError(f"{store.path} was not measured by BitPlan, and does not say how to measure again; "
                        "profile the model with `bitplan profile`") from None  # fmt: skip
    check_typed(*settings.metrics)
    return settings


def _problem(evidence: Evidence) -> Problem:
    """Returns the problem of the candidates that a kernel runs, or of all candidates where no kernel runs any."""
    real = formulate(evidence, {}, (), real=True)
    return real if len(hull_steps(real, _loss(real)).group) else formulate(evidence, {}, (), real=False)


def _loss(problem: Problem) -> Any:
    """Returns the (C,) losses of both families together."""
    return sum(problem.column(family) for family in FAMILIES if family in problem.columns)


def _decisions(problem: Problem, evidence: Evidence, plan: Plan | None) -> tuple[HullSteps, ReferencePlans]:
    """Returns the steps between candidates by both families, and the plans to judge."""
    steps = hull_steps(problem, _loss(problem))
    return steps, _plans(problem, evidence, steps, plan)


def _plans(problem: Problem, evidence: Evidence, steps: HullSteps, plan: Plan | None) -> ReferencePlans:
    if plan is None:
        return reference_plans(problem, steps)
    picks, wrong = picks_of(problem, evidence, plan)
    if wrong:
        raise UserError(f"{wrong[0]}; solve again, or check without --plan")
    return single_plan(steps, picks)


def _judge_family(
    problem: Problem, evidence: Evidence, family: str, sample: tuple[Sequence[int], Sequence[Pair], Sequence[Compared]],
    options: CheckOptions,
) -> RegretVerdict:  # fmt: skip
    groups, pairs, compared = sample
    steps = hull_steps(problem, problem.column(family).astype(np.float64))
    ratios, noise = ratios_of(evidence, family, pairs, compared)
    plans = _plans(problem, evidence, steps, options.plan)
    owners = np.array(groups, np.int64)
    return judge(family, (owners, ratios, noise), steps, plans, options.tolerance, options.seed)


def _families(evidence: Evidence, problem: Problem, plan: Plan | None) -> list[str]:
    """Returns the families that the plan weighs, by name or by a metric; all without a plan or weights."""
    known = [family for family in FAMILIES if family in problem.columns]
    weights = {} if plan is None else plan.solver.get("weights", {})
    weighed = {name for name, weight in weights.items() if weight}
    chosen = [family for family in known if weighed & {family, *members_of(evidence, family)}]
    return chosen or known


def _traced(store: Profile, settings: Settings, pipeline: str | Subject, options: CheckOptions) -> Traced:
    """Loads the fine-tune and runs it once on the conditions of the profile. Raises UserError for other conditions."""
    weights = Weights(FLOAT32, options.variant, settings.variant, options.folder)
    subject, own = load_subject(pipeline, settings.generation, weights), options.conditions
    if own is not None:
        subject = holding(subject, conditions_of(subject, own, len(own)))
    else:
        check_pictures(settings.prompts, store.path)
    conditions, model = conditions_in(subject, settings.prompts), store.header()["model"]
    if labels_of(conditions) != settings.prompts:
        raise UserError(
            f"{subject.name} is to be checked on the {len(settings.prompts)} conditions that {store.path} was measured "
            "on, and these are others; let it bring those, or give them as prompts"
        )
    traced = examine_all(subject, conditions, settings.generation.seed, settings.components or model["components"])
    check_dtype(traced.dtype, True, f"{subject.name} converted to {FLOAT32}")
    return traced


def _measured(
    store: Profile, traced: Traced, settings: Settings, what: tuple[Sequence[Pair], CheckOptions]
) -> list[Measurement]:
    """Measures pairs by runs of the whole model, with everything else in full precision.

    what: the pairs, and the options of the engine.
    """
    pairs, options = what
    settings = replace(settings, variant=options.variant or settings.variant)
    engine = engine_named(options.engine, options.cluster)
    check_repeats(traced, conditions_in(traced.subject, settings.prompts)[0], settings.generation.seed)
    with eagerly(), opened(traced.subject.modules):
        setup = setup_of(traced, settings, _ranges(store, traced, pairs))
        layers = len({layer for layer, _ in pairs})
        jobs = jobs_of("exhaustive", pairs, -(-layers // engine.worker_count(options.cluster, setup.threads)))
        results = engine.run(setup, jobs, lambda: worker_of(setup, traced.subject), options.cluster)
        found = {one.pair: one.measurements for one in bar(results, "sample", len(pairs), "measurement")}
    return [measurement for pair in pairs for measurement in found[pair]]


def _ranges(store: Profile, traced: Traced, pairs: Sequence[Pair]) -> Mapping[str, ActivationRange]:
    """The ranges of the profile, and the fine-tune's own for layers whose scheme in the sample needs one."""
    static = {layer for layer, scheme in pairs if parse_scheme(scheme).inputs.static}
    return stored_ranges(store) | {layer: own for layer, own in traced.ranges.items() if layer in static}


def _check_layers(store: Profile, traced: Traced, pipeline: str) -> None:
    """Raises UserError where the pipeline's layers are not those of the profile."""
    model = store.header()["model"]
    if architecture_fingerprint(traced.graph) == model["architecture"]:
        return
    old, new = (
        {layer.address: (layer.kind, layer.weight) for layer in graph.layers}
        for graph in (from_json(store.graph()), traced.graph)
    )
    differing = sorted(layer for layer in old.keys() | new.keys() if old.get(layer) != new.get(layer))
    such = f", such as {differing[0]}" if differing else ", in their bias, geometry or ties"
    raise UserError(
        f"{pipeline} has other layers than {store.path}, of {model['name']}: "
        f"{len(differing)} of {len(old)} differ{such}; "
        "only a fine-tune of the same architecture can be checked, profile this one"
    )


def _static(store: Profile, plan: Plan | None) -> bool:
    """Whether plans may hold calibrated ranges of the old model's activations."""
    schemes = store.schemes() if plan is None else plan.schemes.values()
    return any(parse_scheme(scheme).inputs.static for scheme in schemes)


def _has(compared: Sequence[Compared], metric: str) -> bool:
    return any(one.new.metric == metric for one in compared)
