"""Registers BitPlan as a quantizer of diffusers and transformers, so that they save and load pipelines with plans.

Process-wide effect: each library keeps its quantizers in two dictionaries and offers no other place for one, so
`register` adds one entry to each dictionary and `unregister` removes it. It also wraps the methods that
`bitplan.planner.applied.wrapped` lists. Importing the libraries takes seconds, so the entries are added when a library
is imported, by an import hook of `wrapt` if that is later. The entries import the quantizers when they are called, so
that no import order matters. This file imports no torch.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import wrapt

from bitplan.planner.applied.wrapped import unwrap, wrap
from bitplan.planner.pipelines.marks import METHOD

DIFFUSERS, TRANSFORMERS = "diffusers.quantizers.auto", "transformers.quantizers.auto"


def register() -> None:
    """Makes `quant_method: bitplan` known to diffusers and transformers, whether they are imported before or after."""
    wrapt.when_imported(DIFFUSERS)(lambda auto: _add(auto, _diffusers_quantizer))
    wrapt.when_imported(TRANSFORMERS)(lambda auto: _add(auto, _transformers_quantizer))
    wrap()


def unregister() -> None:
    """Removes the entries from those of the libraries that are imported, and unwraps their methods."""
    unwrap()
    for auto in (sys.modules[name] for name in (DIFFUSERS, TRANSFORMERS) if name in sys.modules):
        auto.AUTO_QUANTIZATION_CONFIG_MAPPING.pop(METHOD, None)
        auto.AUTO_QUANTIZER_MAPPING.pop(METHOD, None)


def _add(auto: ModuleType, quantizer: Any) -> None:
    from bitplan.planner.applied.config import BitPlanConfig

    auto.AUTO_QUANTIZATION_CONFIG_MAPPING[METHOD] = BitPlanConfig
    auto.AUTO_QUANTIZER_MAPPING[METHOD] = quantizer


def _diffusers_quantizer(config: Any, **options: Any) -> Any:
    from bitplan.planner.applied.diffusers_quantizer import BitPlanQuantizer

    return BitPlanQuantizer(config, **options)


def _transformers_quantizer(config: Any, **options: Any) -> Any:
    from bitplan.planner.applied.transformers_quantizer import TextQuantizer

    return TextQuantizer(config, **options)
