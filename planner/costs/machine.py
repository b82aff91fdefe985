"""Describes the machine of a measurement."""

from __future__ import annotations

import platform
from typing import Any

import torch

from bitplan.plans.kernels.cpu.choice import path_choice


def about_machine() -> dict[str, Any]:
    """Returns the threads, the processor, its way to multiply int8 codes, and the versions, as JSON data."""
    return {
        "threads": torch.get_num_threads(),
        "processor": platform.processor() or platform.machine(),
        "int8_products": str(path_choice()),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
    }
