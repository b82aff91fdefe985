"""Odd subjects are profiled, planned and applied right, within the stated error of a plain measurement, or refused by
name before anything slow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import bitplan
from bitplan.planner.errors import is_own
from bitplan.planner.profiles.profile import open_profile
from bitplan.plans.plan import load_plan
from tests.odd import truth
from tests.odd.subjects import SUBJECTS, Odd

SCHEMES = ("w4a8", "w3a8")
OPTIONS: dict[str, Any] = {"schemes": SCHEMES, "probes": 48, "timesteps": 2, "checks": 2}
MEMORY = "30%"


def rows(refused: bool) -> Any:
    chosen = [row for row in SUBJECTS if bool(row.refused) is refused]
    return pytest.mark.parametrize("row", chosen, ids=[row.name for row in chosen])


def test_every_row_has_a_name_of_its_own() -> None:
    assert len({row.name for row in SUBJECTS}) == len(SUBJECTS)


@rows(refused=True)
def test_refused_by_name_before_anything_slow(row: Odd, tmp_path: Path) -> None:
    out = tmp_path / "o.profile"
    with pytest.raises(ValueError) as caught:
        bitplan.profile(row.build(), out, method=row.method, **OPTIONS)
    assert is_own(caught.value)
    assert row.refused in str(caught.value) and "\n" not in str(caught.value)
    if out.exists():
        with open_profile(out) as store:
            assert not store.costs() and not store.measured()


@rows(refused=False)
def test_right_within_the_stated_error(row: Odd, tmp_path: Path) -> None:
    profile = bitplan.profile(row.build(), tmp_path / "o.profile", method=row.method, count=row.count, **OPTIONS)
    with open_profile(profile) as store:
        found = {(m.layer, m.scheme): m.mean for m in store.measurements() if m.metric == truth.METRIC}
    assert set(found) == {(layer, scheme) for layer in truth.called(row.build()) for scheme in SCHEMES}
    assert found == pytest.approx(truth.losses(row.build, found), rel=row.error)
    bitplan.solve(profile, tmp_path / "o.plan.yaml", memory=MEMORY)
    check_applied(row, tmp_path / "o.plan.yaml")


def check_applied(row: Odd, plan: Path) -> None:
    """With the plan the subject computes as one whose layers were put to their schemes one by one; restored, as
    before."""
    other, subject = row.build(), row.build()
    full = truth.outputs(subject)
    with truth.simulated(other, load_plan(plan).schemes):
        expected = truth.outputs(other)
    bitplan.apply(subject, plan, kernels="fake")
    assert torch.equal(truth.outputs(subject), expected) and not torch.equal(expected, full)
    bitplan.restore(subject)
    assert torch.equal(truth.outputs(subject), full)
