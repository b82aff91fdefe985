"""Candidates measured end to end on prompts that planning never saw: what `solve --rerank` orders them by."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tqdm import tqdm

from planner.applying import check_model
from planner.arguments import dtype_of
from planner.candidates import Losses
from planner.evaluating import build_bench, losses_of
from planner.pipelines import Generation, float_components, load_encoder, load_pipeline
from plans.plan import Plan

SEED = 1000  # of the first prompt's noise, as in `evaluate`


def measurer(plans: Sequence[Plan], pipeline: str, prompts: Sequence[str], clip: str | None, kernels: str) -> Callable[
    [Plan], Losses
]:  # fmt: skip
    """What measures the losses of one plan against full precision, with the steps and guidance of the profile.

    Raises UserError, and PlanError where the pipeline is not the plans' model.
    """
    first = plans[0]
    pipe, encoder = load_pipeline(pipeline, dtype_of(plans)), load_encoder(pipeline, clip)
    parts = float_components(pipe, first.model["components"])
    check_model(first, parts, allow_mismatch=False)
    generation = Generation(first.calibration["steps"], first.calibration["guidance"], SEED)
    bench = build_bench(pipe, parts, list(first.schemes), encoder, prompts, generation)
    progress = tqdm(total=len(plans), desc="candidates")

    def measure(plan: Plan) -> Losses:
        losses = losses_of(bench, plan, kernels)
        progress.update()
        return losses

    return measure
