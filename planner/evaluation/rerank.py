"""Candidates measured end to end on prompts that planning never saw: what `solve --rerank` orders them by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bitplan.planner.applied.pipeline import check_model
from bitplan.planner.choice.alternates import Losses
from bitplan.planner.evaluation.plans import build_bench, losses_of
from bitplan.planner.pipelines.generation import Generation
from bitplan.planner.pipelines.sources import float_components, load_subject
from bitplan.planner.pipelines.subject import conditions_of
from bitplan.planner.progress import bar
from bitplan.plans.plan import Plan, dtype_of

PROMPTS = 8  # held-out ones to measure on, where none are given
CALLED = ("steps", "guidance", "options")  # what a plan remembers of how its model was called
SEED = 1000  # of the first prompt's noise, as in `evaluate`


def measurer(
    plans: Sequence[Plan], pipeline: str, prompts: Sequence[Any] | None, clip: str | None, kernels: str
) -> Callable[[Plan], Losses]:
    """What measures the losses of one plan against full precision, with the steps and guidance of the profile.

    Raises UserError, and PlanError where the pipeline is not the plans' model.
    """
    first = plans[0]
    generation = Generation(**{key: value for key, value in first.calibration.items() if key in CALLED}, seed=SEED)
    subject = load_subject(pipeline, generation, dtype_of(plans))
    check_model(first, float_components(subject, first.model["components"]), allow_mismatch=False)
    conditions = conditions_of(subject, prompts, PROMPTS, held_out=True)
    bench = build_bench(subject, list(first.schemes), conditions, SEED, first.calibration.get("metrics", ()), clip)
    progress = bar(None, "candidates", len(plans), "plan")

    def measure(plan: Plan) -> Losses:
        losses = losses_of(bench, plan, kernels)
        progress.update()
        return losses

    return measure
