"""Frechet distance of two sets of image embeddings."""

from __future__ import annotations

import torch


def frechet(full: torch.Tensor, variant: torch.Tensor) -> torch.Tensor:
    """Shares of the Frechet distance of two sets of embeddings, (N, D) or (N, F, D) twice to (N,) float64, all >= 0.

    The mean of the shares is exactly |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), the squared distance of the Gaussians
    with the sets' means and covariances (Dowson and Landau 1982, eq. 4; over N, not N - 1). With X, Y the centred rows
    over the root of N, tr (S1 S2)^(1/2) is the sum of the singular values of X Y^T, an N x N matrix, so that no root of
    a singular covariance is needed. The trace term is min |X - Q Y|^2 over all rotations Q (Schonemann 1966), and the
    share of a sample is its row at the best Q. It depends on the whole set.

    Both sets are of the same prompts and noise, so the distance is 0 for equal outputs and at most twice the mean
    `embed_drift`. All frames of a video are members of the set. With fewer samples than dimensions the distance is
    biased upwards, towards that bound: most changes leave the span of the full-precision embeddings, in which there is
    no variance. Compare only values with the same number of samples.
    """
    samples = len(full)
    full, variant = full.double().flatten(0, -2), variant.double().flatten(0, -2)
    shift = (full.mean(0) - variant.mean(0)).square().sum()
    x, y = full - full.mean(0), variant - variant.mean(0)
    left, _, right = torch.linalg.svd(x @ y.T)
    return (x - left @ (right @ y)).square().sum(1).view(samples, -1).mean(1) + shift
