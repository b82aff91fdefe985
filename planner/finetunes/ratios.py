"""Compares losses of a sample in the old profile with those measured again, by family. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bitplan.planner.choice.evidence import Evidence, members_of, scale_of
from bitplan.planner.profiles.profile import Pair
from bitplan.sensitivity.agreement import MOST, Compared
from bitplan.solvers.questions.regret import Floats


def ratios_of(
    evidence: Evidence, family: str, pairs: Sequence[Pair], compared: Sequence[Compared]
) -> tuple[Floats, Floats]:
    """Returns (n,) log ratios new / old of the family's column of the solver, and their (n,) variances by errors.

    A common factor of all losses of a metric is removed before metrics are averaged, since it is only a change of
    units. A loss of 0 counts as a thousandth of the smallest positive one.
    """
    metrics = [m for m in members_of(evidence, family) if any(one.new.metric == m for one in compared)]
    table = {(one.new.layer, one.new.scheme, one.new.metric): one for one in compared}
    old, new, errors = np.zeros((3, len(pairs)))
    for metric in metrics:
        sample = [table[*pair, metric] for pair in pairs]
        before, after = (_positive(np.array([getattr(one, which).mean for one in sample])) for which in ("old", "new"))
        scale = scale_of(evidence, metric)
        old += before / scale
        new += after / scale / np.exp(np.median(np.log(after) - np.log(before)))
        # the errors of one run's metrics correlate positively: their sum bounds the joint error
        errors += np.sqrt([min(MOST, sum(one.errors)) for one in sample]) * before / scale
    return np.log(new / old), np.square(errors / old)


def _positive(losses: Floats) -> Floats:
    positive = losses[losses > 0]
    return np.maximum(losses, 1e-3 * positive.min() if len(positive) else 1.0)
