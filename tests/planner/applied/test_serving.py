"""A packed pipeline in a server: threads that share its models, and batches, as docs/serving.md says."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from tests.packed import paint

torch.set_num_threads(1)


def test_threads_that_share_the_models_paint_what_one_thread_paints(packed: Any, picture: torch.Tensor) -> None:
    def pipeline() -> Any:
        scheduler = packed.scheduler.from_config(packed.scheduler.config)
        return type(packed)(**{**packed.components, "scheduler": scheduler}, requires_safety_checker=False)

    with ThreadPoolExecutor(4) as pool:
        pictures = list(pool.map(paint, [pipeline() for _ in range(8)]))
    assert all(torch.equal(one, picture) for one in pictures)
