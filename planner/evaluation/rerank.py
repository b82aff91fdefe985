"""Measures candidate plans end to end on held-out prompts; `solve --rerank` orders them by the losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bitplan.planner.choice.ranking import Losses
from bitplan.planner.evaluation.evaluator import EvaluatorOptions, open_evaluator
from bitplan.planner.evaluation.plans import losses_of
from bitplan.planner.pipelines.generation import generation_in
from bitplan.planner.progress import bar
from bitplan.plans.plan import Plan

PROMPTS = 8  # number of held-out prompts where the user gives none
CALL_KEYS = ("steps", "guidance", "options")  # of a plan's `calibration`: how its model was called
SEED = 1000  # of the first prompt's noise, as in `evaluate`


@dataclass(frozen=True)
class RerankOptions:
    """What candidate plans are measured on.

    Attributes:
        pipeline: its name.
        prompts: the user's conditions; None for held-out ones.
        clip: folder or hub id of the CLIPModel; None for the pipeline's own.
        kernels: `int` or `fake`.
        metrics: more metrics, as `bitplan.planner.pipelines.references` marks them.
        variant: variant of the weights' files; None for that of the plans.
    """

    pipeline: str
    prompts: Sequence[Any] | None
    clip: str | None
    kernels: str
    metrics: Sequence[str] = ()
    variant: str | None = None


def measurer(plans: Sequence[Plan], run: RerankOptions) -> Callable[[Plan], Losses]:
    """Returns a function that measures the losses of one plan against full precision, called as the profile's model.

    Raises UserError, and PlanError where the pipeline is not the plans' model.
    """
    first = plans[0]
    generation = generation_in({key: value for key, value in first.calibration.items() if key in CALL_KEYS}, seed=SEED)
    options = EvaluatorOptions(
        run.pipeline, generation, run.prompts, PROMPTS, run.metrics, run.clip, variant=run.variant
    )  # fmt: skip
    evaluator = open_evaluator(options, [first])
    progress = bar(None, "candidates", len(plans), "plan")

    def measure(plan: Plan) -> Losses:
        losses = losses_of(evaluator, plan, run.kernels)
        progress.update()
        return losses

    return measure
