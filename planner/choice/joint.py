"""Predicts the losses of a whole plan from the responses in a profile, without a model run and without torch.

The sum of the layers' losses ignores that their errors may amplify or cancel each other. Responses to one probe are
added before they are squared, so that every cross term is included (see `bitplan.sensitivity.probes.estimate`). The
resulting ratio, the interaction, is applied to the profile's losses, which may be measured or corrected; responses are
neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from tabulate import tabulate

from bitplan.planner.choice.evidence import KEEP
from bitplan.planner.choice.record import check_same_model, full_costs
from bitplan.planner.errors import UserError
from bitplan.planner.profiles.profile import Profile
from bitplan.planner.profiles.responses import probed, responses_of
from bitplan.planner.units import beside_full
from bitplan.plans.plan import Plan
from bitplan.sensitivity.responses import Reading, Sums, measurement_of, samples_of
from bitplan.sensitivity.table import LossTable


@dataclass(frozen=True)
class Prediction:
    """The prediction of one metric for a whole plan.

    Attributes:
        metric: its name.
        added: the sum of the layers' losses.
        joint: the loss with interactions.
        stderr: the standard error of `joint` over prompts and probes.
        interaction: joint / added of the responses alone; nan for a signed metric.
    """

    metric: str
    added: float
    joint: float
    stderr: float
    interaction: float


class Predictions(dict[str, Prediction]):
    """The predictions of one plan by metric, and the time of its layers beside full precision's in words."""

    time = ""

    def to_json(self) -> dict[str, Any]:
        """Return the predictions for JSON; an interaction may be nan."""
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
        text = str(tabulate(rows, headers=headers, tablefmt="github"))
        return f"{text}\n{self.time}" if self.time else text


def predict_plan(plan: Plan, store: Profile) -> Predictions:
    """Predict every metric of the profile. Raises UserError for a profile without responses or of another model."""
    check_same_model(plan, store)
    readings = readings_of(store)
    changed = {layer: scheme for layer, scheme in plan.schemes.items() if scheme != KEEP}
    sums = responses_of(store, changed)
    table = LossTable.of(store.measurements())
    found = Predictions({name: _prediction(name, reading, changed, sums, table) for name, reading in readings.items()})
    if (ms := plan.predictions.get("total", {}).get("ms")) is not None:
        found.time = f"time of the planned layers: {beside_full(ms, full_costs(plan).get('ms'))}"
    return found


def readings_of(store: Profile) -> Mapping[str, Reading]:
    """Return metric -> how its responses become losses. Raises UserError if the profile has no responses."""
    readings = probed(store).readings
    if not readings:
        raise UserError(f"{store.path} has no responses; profile with --method probes")
    return readings


def _prediction(
    metric: str, reading: Reading, changed: Mapping[str, str], sums: Mapping[tuple[str, str, str], Sums],
    table: LossTable,
) -> Prediction:  # fmt: skip
    responses = {
        layer: sums[layer, scheme, metric] for layer, scheme in changed.items() if (layer, scheme, metric) in sums
    }
    losses = {layer: table.measurement(layer, scheme, metric).mean for layer, scheme in changed.items()}
    added = sum(max(loss, 0.0) for loss in losses.values())
    if not responses:
        return Prediction(metric, added, added, 0.0, 1.0)
    whole = measurement_of("all", "plan", metric, reading, np.sum(list(responses.values()), axis=0, dtype=np.float64))
    rest = sum(loss for layer, loss in losses.items() if layer not in responses)
    if reading.signed:
        return Prediction(metric, added, whole.mean + rest, whole.stderr, float("nan"))
    alone = sum(float(samples_of(reading, one).mean()) for one in responses.values())
    interaction = whole.mean / alone if alone else 1.0
    probed_losses = added - max(rest, 0.0)
    scale = probed_losses / alone if alone else 1.0
    return Prediction(metric, added, probed_losses * interaction + rest, whole.stderr * scale, interaction)


def losses_of_plan(plan: Plan, store: Profile) -> dict[str, tuple[float, float]]:
    """Return metric -> (joint estimate, standard error)."""
    return {name: (each.joint, each.stderr) for name, each in predict_plan(plan, store).items()}
