"""BitPlan decides, layer by layer, how to quantize a diffusion model.

    import bitplan
    bitplan.profile("scenes", "scenes.profile")
    bitplan.solve("scenes.profile", "p.plan.yaml", memory="30%")
    pipe = bitplan.apply(pipe, "p.plan.yaml")        # the same diffusers pipeline, its layers swapped
    pipe = bitplan.restore(pipe)
    DiffusionPipeline.from_pretrained(hub_id, quantization_config=bitplan.config("p.plan.yaml"))

Once this is imported, `from_pretrained` also loads what `save_pretrained` wrote of a pipeline with a plan. The verbs
are those of `bitplan.planner.verbs`; they are imported when first used, so that importing this costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from bitplan.planner.applied import register

NOUNS = {"Subject": "bitplan.planner.pipelines.subject", "Metric": "bitplan.sensitivity.metrics"}


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
        from bitplan.planner.verbs import verb

        return verb(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
