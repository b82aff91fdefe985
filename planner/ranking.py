"""Candidates measured end to end on prompts that planning never saw: what `solve --rerank` orders them by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from planner.applying import check_model
from planner.arguments import dtype_of
from planner.calling import Generation
from planner.candidates import PROMPTS, Losses
from planner.evaluating import build_bench, losses_of
from planner.pipelines import float_components
from planner.progress import bar
from planner.subject import conditions_of, load_subject
from plans.plan import Plan

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
