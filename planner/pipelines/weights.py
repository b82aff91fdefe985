"""Which weights of a pipeline are loaded, and where to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bitplan.planner.files import PathLike
from bitplan.plans.dtypes import FLOAT32
from bitplan.plans.plan import Plan, dtype_of


@dataclass(frozen=True)
class Weights:
    """The weights to load.

    Attributes:
        dtype: float type that they are converted to.
        variant: variant of their files, such as fp16; None for `recorded`, plain ones or the only variant.
        recorded: the variant that was profiled, taken where the pipeline has it and `variant` is None.
        folder: folder for weights instead of memory, see `bitplan.planner.pipelines.offload`; None for memory.
    """

    dtype: str = FLOAT32
    variant: str | None = None
    recorded: str | None = None
    folder: PathLike | None = None


PLAIN = Weights()


def weights_for(plans: Sequence[Plan], variant: str | None = None, folder: PathLike | None = None) -> Weights:
    """Returns those that the plans were made for. Raises PlanError for plans of several float types."""
    recorded = {plan.model.get("variant") for plan in plans}
    return Weights(dtype_of(plans), variant, recorded.pop() if len(recorded) == 1 else None, folder)
