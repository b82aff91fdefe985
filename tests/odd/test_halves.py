"""The float type is read from the modules that run, however a pipeline is given, and what is refused in 16 bits is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import bitplan
from bitplan.planner.errors import UserError
from bitplan.planner.measurement.worker import open_worker
from bitplan.planner.pipelines.subject import Subject
from bitplan.planner.profiles.profile import open_profile
from tests.odd import halves
from tests.odd.subjects import plain

OPTIONS: dict[str, Any] = {"schemes": ("w4a8",), "probes": 4, "timesteps": 1, "components": ("net",)}
GIVEN: dict[str, Callable[[], Subject | str]] = {
    "a subject": halves.whole,
    "a mixed subject": halves.mixed,
    "a reference": lambda: "tests.odd.halves:whole",
    "a mixed reference": lambda: "tests.odd.halves:mixed",
}


@pytest.mark.parametrize("how", GIVEN)
def test_runs_in_16_bits_are_refused_and_probes_have_no_checks(how: str, tmp_path: Path) -> None:
    for more in ({"checks": 4}, {"time": "1m"}, {"method": "exhaustive"}):
        with pytest.raises(UserError, match=r"a run in bfloat16 shows .*compute in bfloat16, converted to"):
            bitplan.profile(GIVEN[how](), tmp_path / "refused.profile", **OPTIONS, **more)
    with open_profile(bitplan.profile(GIVEN[how](), tmp_path / "h.profile", **OPTIONS)) as store:
        assert store.header()["model"]["dtype"] == "bfloat16"
        assert {m.source for m in store.measurements()} == {"probes"}


@pytest.mark.parametrize("build", [halves.whole, halves.mixed])
def test_float16_is_refused(build: Callable[[torch.dtype], Subject], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="measured in float32 or bfloat16, not 'float16'; give .* converted to float32"):
        bitplan.profile(build(torch.float16), tmp_path / "h.profile", **OPTIONS)


def test_what_does_not_run_does_not_count(tmp_path: Path) -> None:
    with open_profile(bitplan.profile(halves.idle(), tmp_path / "h.profile", **OPTIONS, checks=2)) as store:
        assert store.header()["model"]["dtype"] == "float32"


@pytest.mark.parametrize("given", [halves.idle, lambda: "tests.odd.halves:idle"])
def test_another_type_than_the_modules_have_is_refused(given: Callable[[], Subject | str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="leave --dtype .*out"):
        bitplan.profile(given(), tmp_path / "h.profile", **OPTIONS, dtype="bfloat16")


def test_a_worker_loads_a_reference_in_its_own_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    keep = lambda worker, _: seen.append(worker) or worker  # noqa: E731
    monkeypatch.setattr("bitplan.planner.measurement.run.try_measuring", keep)
    bitplan.profile("tests.odd.halves:whole", tmp_path / "h.profile", **OPTIONS)
    worker = open_worker(seen[0].setup)
    assert {p.dtype for p in worker.subject.modules["net"].parameters()} == {torch.bfloat16}


def test_a_profile_is_not_checked_by_a_fine_tune_of_16_bits(tmp_path: Path) -> None:
    profile = bitplan.profile(plain(), tmp_path / "p.profile", schemes=("w4a8",), probes=4, timesteps=1, checks=0)
    with pytest.raises(UserError, match="a run in bfloat16 shows the rounding of all layers"):
        bitplan.check(profile, halves.mixed(), sample=2)
