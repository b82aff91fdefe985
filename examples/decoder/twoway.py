"""Two-way identification: the share of pairs where a reconstruction is closer to its own original than to others."""

from __future__ import annotations

import torch
from torch import Tensor

from bitplan.sensitivity.metrics import Metric


def confusion(originals: Tensor, reconstructions: Tensor) -> Tensor:
    """Returns for each reconstruction the share of other originals that are closer to it than its own, by cosine.

    originals, reconstructions: embeddings (P, D); result: (P,) float64, 0.5 by chance.
    """
    first, second = (torch.nn.functional.normalize(x.double(), dim=1) for x in (originals, reconstructions))
    similarity = second @ first.T
    return (similarity > similarity.diagonal()[:, None]).double().sum(1) / max(len(similarity) - 1, 1)


# A sample's loss depends on all samples, so losses of layers do not add up: it serves evaluations only.
TWOWAY = Metric(
    "twoway", "own", "embeds", "share of other originals that are closer than the own one", confusion,
    outputs=("images",), additive=False,
)  # fmt: skip
