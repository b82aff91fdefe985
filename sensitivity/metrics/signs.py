"""Random signs, of which all probes are made."""

from __future__ import annotations

import torch


def random_signs(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """float32 -1 or 1 with even odds, shaped like `like`.

    They are drawn on the CPU so that every device gets the same. Of all distributions of unit covariance this one has
    quadratic forms of least variance (Hutchinson 1990).
    """
    signs = torch.randint(0, 2, like.shape, generator=generator, dtype=torch.int8, device="cpu")
    return (2.0 * signs - 1.0).to(like.device)
