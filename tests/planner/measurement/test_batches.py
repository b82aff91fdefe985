"""Runs of many conditions are divided into batches by what one condition holds, with equal results."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import bitplan
from bitplan.planner.measurement.replay import build_replay
from bitplan.planner.pipelines import memory
from bitplan.planner.pipelines.memory import LiveTensors, batch_of
from bitplan.planner.pipelines.subject import Subject
from bitplan.planner.pipelines.traced import examine
from bitplan.planner.profiles.profile import open_profile
from tests.odd.outside import outside
from tests.odd.subjects import plain

ORDERS = ("stacked", "interleaved", "frames as (b f)", "frames as (f b)")
OPTIONS: dict[str, Any] = {"schemes": ("w4a8",), "probes": 4, "timesteps": 2, "method": "exhaustive"}


def test_live_tensors_are_summed() -> None:
    with LiveTensors() as live:
        for _ in range(3):
            first = torch.zeros(1000, dtype=torch.float32)
            both = torch.cat([first, first])
            both.view(2, 1000).mul_(2)  # a view and a write take no memory
            del first, both
    assert live.most == 4 * (1000 + 2000)


@pytest.mark.parametrize(("held", "batch"), [(1, 1024), (512, 2), (300, 2), (1024, 1), (5000, 1), (0, 1024)])
def test_a_batch_is_a_power_of_two_that_fits(held: int, batch: int) -> None:
    assert batch_of(held, 1024) == batch


@pytest.mark.parametrize("build", [plain, *(partial(outside, how) for how in ORDERS)])
def test_batches_give_the_replay_of_all_conditions(build: Any) -> None:
    """Equal up to the rounding of another batch size; samples, calls and their order are the same."""
    found = []
    for batch in (None, 3, 1):
        subject = build()
        replay = build_replay(subject, [subject.modules["net"]], subject.conditions, 0, 2, batch)
        again = replay.run()
        assert torch.equal(again.outputs, replay.reference.outputs)  # the same batches: no rounding in a difference
        rows = torch.cat(replay.reference.denoised)
        kinds = zip(replay.reference.groups, replay.reference.owners, strict=True)
        own: dict[Any, list[Tensor]] = {}
        for row, key in zip(rows, kinds, strict=True):
            own.setdefault(key, []).append(row)
        found.append((replay.reference.outputs, {key: torch.stack(several) for key, several in own.items()}))
    for outputs, by_key in found[1:]:
        torch.testing.assert_close(outputs, found[0][0])
        torch.testing.assert_close(by_key, found[0][1])


def test_losses_are_equal_and_runs_are_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses, sizes = [], set[int]()

    def counting(subject: Subject) -> Subject:
        run = subject.run

        def counted(conditions: Any, seed: int) -> Tensor:
            sizes.add(len(conditions))
            return run(conditions, seed)

        return Subject(subject.modules, counted, subject.conditions, "array", name=subject.name)

    held = examine(plain(), plain().conditions).batch
    assert held > 4
    for room in (memory.ROOM, 1):
        monkeypatch.setattr(memory, "ROOM", room)
        sizes.clear()
        with open_profile(bitplan.profile(counting(plain()), tmp_path / f"{room}.profile", **OPTIONS)) as store:
            losses.append({(m.layer, m.metric): (m.mean, m.stderr) for m in store.measurements()})
    assert sizes == {1}
    assert losses[0].keys() == losses[1].keys()
    for key, (mean, stderr) in losses[0].items():
        assert losses[1][key] == pytest.approx((mean, stderr), rel=1e-4)


def test_a_shortage_halves_the_runs_and_measuring_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where memory becomes short in the midst of it; the losses are those of whole runs, up to rounding."""
    runs: list[int] = []

    def short_from(number: float) -> Subject:
        subject = plain()
        runs.clear()

        def run(conditions: Any, seed: int) -> Tensor:
            runs.append(len(conditions))
            if len(runs) >= number and len(conditions) > 1:
                raise MemoryError
            return subject.run(conditions, seed)

        return Subject(subject.modules, run, subject.conditions, "array", name=subject.name)

    def losses(number: float) -> dict[Any, Any]:
        with open_profile(bitplan.profile(short_from(number), tmp_path / f"{number}.profile", **OPTIONS)) as store:
            return {(m.layer, m.metric): (m.mean, m.stderr) for m in store.measurements()}

    whole = losses(float("inf"))
    most, last = max(runs), len(runs)
    assert most >= 4 and "goes on" not in capsys.readouterr().err
    halved = losses(last - 1)
    assert runs[-1] == 1 and f"measuring goes on with runs of {most // 2}\n" in capsys.readouterr().err
    assert halved.keys() == whole.keys()
    for key, expected in whole.items():
        assert halved[key] == pytest.approx(expected, rel=1e-4)
