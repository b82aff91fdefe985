"""Pipelines that are saved with their plan and loaded with it: BitPlan as a quantizer of diffusers and transformers.

Both keep their quantizers in dictionaries. Importing them costs seconds, so the entries are made once they are
imported, which may be now. Imports no torch by itself.
"""

from __future__ import annotations

from types import ModuleType

import wrapt

from bitplan.planner.pipelines.marks import METHOD


def register() -> None:
    """Makes `quant_method: bitplan` known to diffusers and transformers, whether they are imported before or after."""
    wrapt.when_imported("diffusers.quantizers.auto")(_with_diffusers)
    wrapt.when_imported("transformers.quantizers.auto")(_with_transformers)


def _with_diffusers(auto: ModuleType) -> None:
    from bitplan.planner.applied.config import BitPlanConfig
    from bitplan.planner.applied.diffusers_quantizer import BitPlanQuantizer

    auto.AUTO_QUANTIZATION_CONFIG_MAPPING[METHOD] = BitPlanConfig
    auto.AUTO_QUANTIZER_MAPPING[METHOD] = BitPlanQuantizer


def _with_transformers(auto: ModuleType) -> None:
    from bitplan.planner.applied.config import BitPlanConfig
    from bitplan.planner.applied.transformers_quantizer import TextQuantizer

    auto.AUTO_QUANTIZATION_CONFIG_MAPPING[METHOD] = BitPlanConfig
    auto.AUTO_QUANTIZER_MAPPING[METHOD] = TextQuantizer
