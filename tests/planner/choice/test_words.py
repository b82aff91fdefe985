"""Errors for users name layers, schemes and losses, and have none of the solver's words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import bitplan

SOLVER = re.compile(r"\b(group|candidate|column|incumbent)s?\b")
WRONG: dict[str, dict[str, Any]] = {
    "a pin to a scheme that was not measured": {"pins": {"unet.conv_in": "w6a8"}},
    "a pin of no layer": {"pins": {"unet.conv_inn": "w8a8"}},
    "an objective of no loss": {"objective": "qualty"},
    "an objective without a name": {"objective": "quality=1,"},
    "a loss twice": {"objective": "quality=1,quality=2"},
    "a cap of no loss": {"caps": {"aligment": "w8a8"}},
    "a cap by a scheme that was not measured": {"caps": {"nsr": "w6a8"}},
    "a uniform plan of a scheme that was not measured": {"uniform": "w6a8"},
    "too little memory": {"memory": "1%"},
    "too little time": {"latency": "1us"},
    "a cap out of reach": {"memory": "25%", "caps": {"nsr": "1e-9"}},
    "a uniform plan above a budget": {"uniform": "w8a8", "memory": "10%"},
}


@pytest.mark.parametrize("name", WRONG)
def test_no_word_of_the_solver_reaches_users(name: str, finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as told:
        bitplan.solve(finished, tmp_path / "p.yaml", **WRONG[name])
    assert not SOLVER.findall(str(told.value)), told.value


def test_a_pin_names_the_nearest_scheme_that_was_measured(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^unet.conv_in was not measured at w6a8; did you mean 'w8a8'\?"):
        bitplan.solve(finished, tmp_path / "p.yaml", pins={"unet.conv_in": "w6a8"})
