"""BitPlan decides, layer by layer, how to quantize a diffusion model.

    import bitplan
    bitplan.profile("scenes", "scenes.profile")
    bitplan.solve("scenes.profile", "p.plan.yaml", memory="30%")
    pipe = bitplan.apply(pipe, "p.plan.yaml")        # the same diffusers pipeline, its layers swapped
    pipe = bitplan.restore(pipe)
    DiffusionPipeline.from_pretrained(hub_id, quantization_config=bitplan.config("p.plan.yaml"))

Once bitplan is imported, `from_pretrained` also loads pipelines with a plan that `save_pretrained` wrote. The verbs are
those of `bitplan.planner.verbs`. Each is imported when it is first used, so that `import bitplan` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from bitplan.planner.applied import register
from bitplan.planner.verbs import VERBS

NOUNS = {"Subject": "bitplan.planner.pipelines.subject", "Metric": "bitplan.sensitivity.metrics"}


__all__ = [*NOUNS, *VERBS]


__version__ = "0.1.0"


register()


def __getattr__(name: str) -> Any:
    if name in NOUNS:
        from bitplan.planner.extras import telling_missing

        with telling_missing(f"bitplan.{name}"):
            return getattr(import_module(NOUNS[name]), name)
    if name in VERBS:
        return VERBS[name].function
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
