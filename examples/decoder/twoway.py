"""Two-way identification: is a reconstruction nearer to its own original than to that of another one?"""

from __future__ import annotations

import torch
from torch import Tensor

from bitplan.sensitivity.metrics import Metric


def confused(originals: Tensor, found: Tensor) -> Tensor:
    """(P,) float64: of each row of `found` (P, D), the share of the other originals (P, D) that are nearer to it than
    its own, by the cosine. 0.5 is chance."""
    first, second = (torch.nn.functional.normalize(x.double(), dim=1) for x in (originals, found))
    likeness = second @ first.T
    return (likeness > likeness.diagonal()[:, None]).double().sum(1) / max(len(likeness) - 1, 1)


# It depends on all samples, so that losses of layers do not add up: for evaluations only.
TWOWAY = Metric(
    "twoway", "own", "embeds", "share of other originals that are nearer than the own one", confused,
    outputs=("images",), additive=False,
)  # fmt: skip
