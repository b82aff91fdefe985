"""What a whole plan does, out of a profile's responses: no model runs, no torch is loaded.

The plain sum of losses ignores that the errors of layers add up or cancel. Their responses to one probe add up before
they are squared, so that every cross term is in (see `bitplan.sensitivity.probes.estimate`). What the sum gains or
loses by that, the
interaction, is applied to the profile's own losses, which may be measured or corrected where responses are neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from tabulate import tabulate

from bitplan.planner.choice.evidence import KEEP
from bitplan.planner.choice.record import check_same_model
from bitplan.planner.errors import UserError
from bitplan.planner.profiles.profile import Profile
from bitplan.planner.profiles.responses import probed, responses_of
from bitplan.plans.plan import Plan
from bitplan.sensitivity.responses import Reading, Sums, measurement_of, samples_of
from bitplan.sensitivity.table import LossTable


@dataclass(frozen=True)
class Prediction:
    """One metric of a whole plan. added: the sum of its layers' losses; joint: with the interactions; stderr: of joint,
    over prompts and probes; interaction: joint over added, of the responses alone (nan for a signed metric)."""

    metric: str
    added: float
    joint: float
    stderr: float
    interaction: float


class Predictions(dict[str, Prediction]):
    """The predictions of one plan by metric."""

    def to_json(self) -> dict[str, Any]:
        """What `json.dumps` takes, but for numbers that are not finite."""
        return {"metrics": [asdict(one) for one in self.values()]}

    def __str__(self) -> str:
        rows = [
            (
                name,
                f"{p.added:.4g}",
                f"{p.joint:.4g} ± {p.stderr:.1g}",
                "" if np.isnan(p.interaction) else f"{p.interaction:.2f}×",
            )
            for name, p in self.items()
        ]
        headers = ("metric", "sum of losses", "joint estimate", "interaction")
        return str(tabulate(rows, headers=headers, tablefmt="github"))


def predict_plan(plan: Plan, store: Profile) -> Predictions:
    """By metric, in the order of the profile. Raises UserError for a profile without responses, or of another model."""
    check_same_model(plan, store)
    readings = readings_of(store)
    changed = {layer: scheme for layer, scheme in plan.schemes.items() if scheme != KEEP}
    sums = responses_of(store, changed)
    table = LossTable.of(store.measurements())
    return Predictions({name: _prediction(name, reading, changed, sums, table) for name, reading in readings.items()})


def readings_of(store: Profile) -> Mapping[str, Reading]:
    """How the profile's responses are to be read. Raises UserError where there are none."""
    readings = probed(store).readings
    if not readings:
        raise UserError(f"{store.path} holds no responses; profile with --method probes")
    return readings


def _prediction(
    metric: str, reading: Reading, changed: Mapping[str, str], sums: Mapping[tuple[str, str, str], Sums],
    table: LossTable,
) -> Prediction:  # fmt: skip
    mine = {layer: sums[layer, scheme, metric] for layer, scheme in changed.items() if (layer, scheme, metric) in sums}
    losses = {layer: table.measurement(layer, scheme, metric).mean for layer, scheme in changed.items()}
    added = sum(max(loss, 0.0) for loss in losses.values())
    if not mine:
        return Prediction(metric, added, added, 0.0, 1.0)
    whole = measurement_of("all", "plan", metric, reading, np.sum(list(mine.values()), axis=0, dtype=np.float64))
    rest = sum(loss for layer, loss in losses.items() if layer not in mine)
    if reading.signed:
        return Prediction(metric, added, whole.mean + rest, whole.stderr, float("nan"))
    alone = sum(float(samples_of(reading, one).mean()) for one in mine.values())
    interaction = whole.mean / alone if alone else 1.0
    probed_losses = added - max(rest, 0.0)
    scale = probed_losses / alone if alone else 1.0
    return Prediction(metric, added, probed_losses * interaction + rest, whole.stderr * scale, interaction)


def losses_of_plan(plan: Plan, store: Profile) -> dict[str, tuple[float, float]]:
    """Metric -> (joint estimate, standard error)."""
    return {name: (found.joint, found.stderr) for name, found in predict_plan(plan, store).items()}
