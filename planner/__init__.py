"""BitPlan decides, layer by layer, how to quantize a diffusion model.

    import planner
    planner.profile("scenes", "scenes.profile")
    planner.solve("scenes.profile", "p.plan.yaml", memory="30%")
    pipe = planner.apply(pipe, "p.plan.yaml")        # the same diffusers pipeline, its layers swapped
    pipe = planner.restore(pipe)
    DiffusionPipeline.from_pretrained(hub_id, quantization_config=planner.config("p.plan.yaml"))

Once this is imported, `from_pretrained` also loads what `save_pretrained` wrote of a pipeline with a plan. The verbs
are those of `planner.workflow`; they are imported when first used, so that importing this costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from planner.loading import register

NOUNS = {"Subject": "planner.subject", "Metric": "sensitivity.metrics"}
__all__ = [
    "Metric", "Subject", "apply", "bench", "check", "config", "cost", "doctor", "evaluate", "explore", "export",
    "import_profile", "inspect", "merge", "paint", "predict", "profile", "report", "restore", "solve", "sweep",
    "verify", "why",
]  # fmt: skip
__version__ = "0.1.0"
register()


def __getattr__(name: str) -> Any:
    if name in NOUNS:
        return getattr(import_module(NOUNS[name]), name)
    if name in __all__:
        from planner import workflow

        return getattr(workflow, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
