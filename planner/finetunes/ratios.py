"""Losses of a sample by the old profile beside those measured anew: agreement by metric and by family. No torch."""

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
    """(n,) log ratios new / old of the family's column of the solver, and (n,) the variances that errors give these.

    A metric's own common factor is taken out before metrics are averaged, as another profile's units would. A loss of
    0 counts as a thousandth of the least that is more.
    """
    metrics = [m for m in members_of(evidence, family) if any(one.new.metric == m for one in compared)]
    table = {(one.new.layer, one.new.scheme, one.new.metric): one for one in compared}
    old, new, errors = np.zeros((3, len(pairs)))
    for metric in metrics:
        mine = [table[*pair, metric] for pair in pairs]
        before, after = (_positive(np.array([getattr(one, which).mean for one in mine])) for which in ("old", "new"))
        scale = scale_of(evidence, metric)
        old += before / scale
        new += after / scale / np.exp(np.median(np.log(after / before)))
        # errors of metrics of one run go together: what they add up to is no more than this
        errors += np.sqrt([min(MOST, sum(one.errors)) for one in mine]) * before / scale
    return np.log(new / old), np.square(errors / old)


def _positive(losses: Floats) -> Floats:
    more = losses[losses > 0]
    return np.maximum(losses, 1e-3 * more.min() if len(more) else 1.0)
