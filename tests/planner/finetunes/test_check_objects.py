"""`check` on conditions that are objects, of which a profile keeps digests, here and elsewhere."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import bitplan
from bitplan.planner.errors import UserError
from bitplan.planner.measurement.jobs import Job, JobResult
from bitplan.planner.measurement.methods import run_job
from bitplan.planner.measurement.worker import Worker, WorkerSetup, open_worker
from tests.planner.pipelines.toy_subjects import made

torch.set_num_threads(1)
NAME = "tests.planner.finetunes.test_check_objects"
VECTORS = [torch.full((5,), 0.5 + i) for i in range(3)]
OPTIONS: dict[str, Any] = {"schemes": ("w8a8", "w2a8"), "checks": 0, "timesteps": 2, "probes": 2}


def bare() -> bitplan.Subject:
    """It brings no conditions."""
    first = made()
    return bitplan.Subject(first.modules, first.run, output="array", name="toy")


def tuned() -> bitplan.Subject:
    """The same, a little other."""
    subject = bare()
    with torch.no_grad():
        for module in subject.modules.values():
            for weight in module.parameters():
                weight += 0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel()))
    return subject


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("objects") / "t.profile"
    return bitplan.profile(f"{NAME}:bare", out, prompts=VECTORS, **OPTIONS)


def test_the_conditions_are_given_again(profiled: Path) -> None:
    found = bitplan.check(profiled, f"{NAME}:tuned", sample=4, prompts=VECTORS)
    assert found.compared == bitplan.check(profiled, tuned(), sample=4, prompts=VECTORS).compared != ()


@pytest.mark.parametrize("given", [None, VECTORS[:2], [*VECTORS[:2], VECTORS[0]]])
def test_others_are_refused_in_one_line(profiled: Path, given: list[Tensor] | None) -> None:
    with pytest.raises(UserError, match="conditions .*(give them to the Subject|give them as prompts)$"):
        bitplan.check(profiled, f"{NAME}:tuned", sample=4, prompts=given)
    own = made()
    with pytest.raises(UserError, match="the 3 conditions that .* these are others"):
        bitplan.check(profiled, own, sample=4)


def test_workers_cannot_be_handed_a_subject(profiled: Path) -> None:
    pytest.importorskip("ray")
    with pytest.raises(UserError, match="load the subject themselves; name it as package.module:name"):
        bitplan.check(profiled, tuned(), engine="ray")


def test_a_station_elsewhere_runs_on_them(profiled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker is told can be pickled, and is enough: its subject brings nothing."""
    opened: list[Worker] = []

    def run(context: WorkerSetup, jobs: Sequence[Job], *_: object) -> Iterator[JobResult]:
        opened.append(open_worker(pickle.loads(pickle.dumps(context))))
        for job in jobs:
            yield from run_job(opened[0], job)

    here = bitplan.check(profiled, f"{NAME}:tuned", sample=4, prompts=VECTORS)
    monkeypatch.setattr("bitplan.planner.measurement.engines.local.run", run)
    assert bitplan.check(profiled, f"{NAME}:tuned", sample=4, prompts=VECTORS) == here
    assert opened[0].subject.name == f"{NAME}:tuned" and len(opened[0].conditions) == len(VECTORS)
