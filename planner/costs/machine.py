"""What a measurement ran on, told beside it."""

from __future__ import annotations

import platform
from typing import Any

import torch


def about_machine() -> dict[str, Any]:
    """Threads, processor and versions, as JSON holds them."""
    return {
        "threads": torch.get_num_threads(),
        "processor": platform.processor() or platform.machine(),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
    }
