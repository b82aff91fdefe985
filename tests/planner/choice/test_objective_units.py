"""Weighted objectives count each column in units of its mean, whatever the unit in which it was measured."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import bitplan
from bitplan.planner.choice.evidence import Evidence, groups_of, read_evidence
from bitplan.planner.choice.limits import pose
from bitplan.planner.choice.request import Request
from bitplan.planner.profiles.profile import open_profile
from bitplan.sensitivity.table import FAMILIES, LossTable
from bitplan.solvers.effort import Effort
from bitplan.solvers.problem import Problem
from bitplan.solvers.solve import solve


def pose_of(request: Request, evidence: Evidence) -> Problem:
    return pose(evidence, request, Effort())


UNITS = ("quality=1,clip_drop=1", "nsr=2,dssim=1", "nsr=1,ms=0.5", "bytes=0.3,dssim=1")


@pytest.mark.parametrize("text", UNITS)
def test_weighted_columns_count_in_units_of_their_means(finished: Path, text: str) -> None:
    """Whatever the scale of a metric: of two columns with one weight, each adds as much in the mean."""
    with open_profile(finished) as store:
        evidence = read_evidence(store)
    request = Request(objective=text)
    problem = pose_of(request, evidence)
    changed = np.array([name != "keep" for names in problem.candidates for name in names])
    for name, weight in request.weights.items():
        part = problem.objective[name] * problem.column(name)[changed].astype(float).mean()
        if len(groups_of(evidence)) == len(evidence.offered):
            assert part == pytest.approx(weight, rel=0.2 if name in FAMILIES else 1e-9)
    assert pose_of(Request(objective="nsr=3"), evidence).objective == {"nsr": 3.0}
    assert pose_of(Request(objective="both"), evidence).objective == {"quality": 1.0, "alignment": 1.0}


def test_the_scale_of_a_metric_does_not_change_the_plan(finished: Path) -> None:
    with open_profile(finished) as store:
        evidence = read_evidence(store)
    request, plans = Request("22%", objective="nsr=1,embed_drift=1"), []
    for factor in (1.0, 2.0**-12, 2.0**12):
        losses = LossTable.of(
            dataclasses.replace(m, mean=m.mean * factor) if m.metric == "embed_drift" else m
            for m in evidence.losses.measurements.values()
        )
        problem = pose_of(request, dataclasses.replace(evidence, losses=losses))
        plans.append(solve(problem).chosen)
    assert plans[0] == plans[1] == plans[2]


def test_costs_count_in_the_same_unit(finished: Path) -> None:
    """Bytes, by the thousand, would leave nothing of a loss; in units of their mean, both decide."""
    with open_profile(finished) as store:
        evidence = read_evidence(store)
    found = {
        text: solve(pose_of(Request(objective=text), evidence)) for text in ("quality", "bytes", "quality=1,bytes=1")
    }
    both, loss, size = (found[text].totals for text in ("quality=1,bytes=1", "quality", "bytes"))
    assert loss["quality"] < both["quality"] < size["quality"] and size["bytes"] < both["bytes"] < loss["bytes"]


def test_plans_record_the_weights_of_the_columns_and_say_the_objective(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.plan.yaml"
    plan = bitplan.solve(finished, out, memory="12%", objective="quality=1,nsr=1")
    weights, total = plan.solver["weights"], plan.predictions["total"]
    assert weights["quality"] == 1.0 and weights["nsr"] > 1.0
    assert sum(weight * total[name] for name, weight in weights.items()) == pytest.approx(plan.solver["objective"])
    assert not bitplan.verify(out, finished).failures
    assert f"objective: quality + {weights['nsr']:.6g} nsr" in str(bitplan.inspect(out))
    assert "objective:" not in str(bitplan.inspect(_saved(finished, tmp_path)))


def _saved(finished: Path, folder: Path) -> Path:
    bitplan.solve(finished, folder / "both.plan.yaml", memory="12%")
    return folder / "both.plan.yaml"
