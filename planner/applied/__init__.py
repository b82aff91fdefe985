"""Registers BitPlan as a quantizer of diffusers and transformers, so that they save and load pipelines with plans.

Process-wide effect: each library keeps its quantizers in two dictionaries and offers no other place for one, so
`register` adds one entry to each dictionary and `unregister` removes it. Importing the libraries takes seconds, so the
entries are added when a library is imported, by an import hook of `wrapt` if that is later. The entries import the
quantizers when they are called, so that no import order matters. It also wraps the methods of pipelines in `WRAPPERS`,
which change layers of packed components. This file imports no torch.
"""

from __future__ import annotations

import sys
from functools import partial
from types import ModuleType
from typing import Any

import wrapt

from bitplan.planner.applied.fusing import check_fusing
from bitplan.planner.applied.widening import keep_packed, put_packed_back
from bitplan.planner.pipelines.marks import METHOD

DIFFUSERS, TRANSFORMERS = "diffusers.quantizers.auto", "transformers.quantizers.auto"
WRAPPERS: tuple[tuple[str, str, str, Any], ...] = (  # file, class, method, what is called in its place
    ("diffusers.loaders.lora_base", "LoraBaseMixin", "fuse_lora", check_fusing),
    ("diffusers.loaders.lora_pipeline", "FluxLoraLoaderMixin", "load_lora_weights", keep_packed),
    ("diffusers.loaders.lora_pipeline", "FluxLoraLoaderMixin", "unload_lora_weights", put_packed_back),
)


def register() -> None:
    """Makes `quant_method: bitplan` known to diffusers and transformers, whether they are imported before or after."""
    wrapt.when_imported(DIFFUSERS)(lambda auto: _add(auto, _diffusers_quantizer))
    wrapt.when_imported(TRANSFORMERS)(lambda auto: _add(auto, _transformers_quantizer))
    for file, owner, method, wrapper in WRAPPERS:
        wrapt.when_imported(file)(partial(_wrap, owner=owner, method=method, wrapper=wrapper))


def unregister() -> None:
    """Removes the entries from those of the libraries that are imported."""
    for auto in (sys.modules[name] for name in (DIFFUSERS, TRANSFORMERS) if name in sys.modules):
        auto.AUTO_QUANTIZATION_CONFIG_MAPPING.pop(METHOD, None)
        auto.AUTO_QUANTIZER_MAPPING.pop(METHOD, None)
    for file, owner, method, wrapper in WRAPPERS:
        made = getattr(sys.modules.get(file), owner, None)
        if made and _is_wrapped(made, method, wrapper):
            setattr(made, method, vars(made)[method].__wrapped__)


def _add(auto: ModuleType, quantizer: Any) -> None:
    from bitplan.planner.applied.config import BitPlanConfig

    auto.AUTO_QUANTIZATION_CONFIG_MAPPING[METHOD] = BitPlanConfig
    auto.AUTO_QUANTIZER_MAPPING[METHOD] = quantizer


def _wrap(file: ModuleType, owner: str, method: str, wrapper: Any) -> None:
    """Does nothing in a version of the library that has no such method."""
    if hasattr(getattr(file, owner, None), method) and not _is_wrapped(getattr(file, owner), method, wrapper):
        wrapt.wrap_function_wrapper(file, f"{owner}.{method}", wrapper)


def _is_wrapped(owner: Any, method: str, wrapper: Any) -> bool:
    return getattr(vars(owner).get(method), "_self_wrapper", None) is wrapper


def _diffusers_quantizer(config: Any, **options: Any) -> Any:
    from bitplan.planner.applied.diffusers_quantizer import BitPlanQuantizer

    return BitPlanQuantizer(config, **options)


def _transformers_quantizer(config: Any, **options: Any) -> Any:
    from bitplan.planner.applied.transformers_quantizer import TextQuantizer

    return TextQuantizer(config, **options)
