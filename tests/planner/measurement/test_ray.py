"""Measuring by real Ray workers: some are killed, the driver is killed, and the losses are those of one process."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch

import bitplan
from bitplan.planner.errors import UserError
from bitplan.planner.measurement.engines import ENGINES, Cluster
from bitplan.planner.measurement.engines import ray as ray_engine
from bitplan.planner.measurement.jobs import Job, JobResult, jobs_of
from bitplan.planner.profiles.profile import open_profile
from bitplan.planner.profiles.responses import probed, responses_of
from bitplan.sensitivity.table import Measurement
from tests import tiny
from tests.planner.finetunes import test_check_objects as objects
from tests.planner.support.killing import Run, measured, workers_below

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="ray is not installed")
SETTINGS: dict[str, Any] = {
    "prompts": tiny.PROMPTS, "schemes": ("w2ma8",), "steps": 2, "timesteps": 1, "guidance": 2.0, "method": "exhaustive",
}  # fmt: skip
PATIENCE = 120.0  # seconds; a test that waits longer has failed


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """Connected to a small cluster of its own."""
    before = signal.getsignal(signal.SIGTERM)
    with ray_engine.connected(Cluster(workers=2)) as connected:
        assert signal.getsignal(signal.SIGTERM) is before  # Ray's own would exit with code 15
        yield connected


@pytest.fixture
def run(tiny_folder: Path, clip_folder: Path, tmp_path: Path) -> Run:
    (tmp_path / "prompts.txt").write_text("\n".join(tiny.PROMPTS))
    return Run(tiny_folder, clip_folder, tmp_path / "prompts.txt", tmp_path / "t.profile")


def losses(path: Path) -> dict[tuple[str, str, str], Measurement]:
    with open_profile(path) as store:
        return {(m.layer, m.scheme, m.metric): m for m in store.measurements()}


def wait_for(path: Path, rows: int, process: BaseProcess | None = None) -> None:
    until = time.monotonic() + PATIENCE
    while measured(path) < rows:
        assert process is None or process.exitcode is None, path.with_suffix(".log").read_text()
        assert time.monotonic() < until
        time.sleep(0.03)


def kill_a_worker(path: Path, rows: int, killed: list[int]) -> None:
    """When so many rows are there; notes its number in `killed`."""
    wait_for(path, rows)
    killed.append(workers_below(os.getpid())[0])
    os.kill(killed[0], signal.SIGKILL)


def test_driver_and_worker_are_killed_and_the_losses_are_the_local_ones(
    run: Run, ray: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    alone = bitplan.profile(str(run.folder), run.out.with_name("alone.profile"), clip=str(run.clip), **SETTINGS)
    address = ray.get_runtime_context().gcs_address
    driven = dataclasses.replace(run, options=("--engine", "ray", "--address", address, "--workers", "2"))
    driver = driven.start(run.out.with_suffix(".log"))
    wait_for(run.out, 3, driver)
    driver.kill()
    driver.join()
    kept = measured(run.out)
    assert 3 <= kept < measured(alone)

    killed: list[int] = []
    killer = threading.Thread(target=kill_a_worker, args=(run.out, kept + 3, killed))
    killer.start()
    capfd.readouterr()
    bitplan.profile(str(run.folder), run.out, clip=str(run.clip), engine="ray", workers=2, **SETTINGS)
    killer.join()
    assert len(killed) == 1
    out, err = capfd.readouterr()
    assert out == "" and re.fullmatch(r"about .* on this machine.*\n", err)
    assert ray.is_initialized()  # whoever was connected before stays so

    expected, found = losses(alone), losses(run.out)
    assert expected.keys() == found.keys()
    for key, loss in expected.items():
        assert found[key].mean == pytest.approx(loss.mean, rel=1e-6, abs=1e-12), key
        assert found[key].stderr == pytest.approx(loss.stderr, rel=1e-4, abs=1e-9), key


def test_workers_probe_and_check_what_one_process_does(
    tiny_folder: Path, clip_folder: Path, ray: Any, tmp_path: Path
) -> None:
    """Rounds are shared out by layers; estimates, responses and checks are the same.

    There are fewer checks than CPUs, which must not become threads: they round otherwise.
    """
    assert torch.get_num_threads() == 1
    options: Any = SETTINGS | {"method": "probes", "probes": 2, "checks": 1, "clip": str(clip_folder)}
    alone = bitplan.profile(str(tiny_folder), tmp_path / "alone.profile", **options)
    shared = bitplan.profile(str(tiny_folder), tmp_path / "shared.profile", engine="ray", workers=2, **options)
    expected, found = losses(alone), losses(shared)
    assert expected.keys() == found.keys()
    assert {m.source for m in expected.values()} >= {"exhaustive", "probes"}
    for key, loss in expected.items():
        assert found[key].source == loss.source
        least = 0 if loss.source == "exhaustive" else 1e-12
        assert found[key].mean == pytest.approx(loss.mean, rel=1e-6, abs=least), key
    with open_profile(alone) as one, open_profile(shared) as other:
        assert probed(one) == probed(other)
        sums, again = responses_of(one), responses_of(other)
    assert sums.keys() == again.keys()
    for key, its in sums.items():
        assert again[key] == pytest.approx(its, rel=1e-4, abs=1e-6 * float(abs(its).max()))


def test_a_check_on_objects_is_that_of_one_process(ray: Any, tmp_path: Path) -> None:
    name = objects.__name__
    base = bitplan.profile(f"{name}:bare", tmp_path / "t.profile", prompts=objects.VECTORS, **objects.OPTIONS)
    options: dict[str, Any] = {"sample": 4, "prompts": objects.VECTORS}
    here = bitplan.check(base, f"{name}:tuned", **options)
    there = bitplan.check(base, f"{name}:tuned", engine="ray", workers=1, **options)
    assert [c.new.layer for c in there.compared] == [c.new.layer for c in here.compared]
    assert [c.new.mean for c in there.compared] == pytest.approx([c.new.mean for c in here.compared], rel=1e-5)
    assert there.verdict == here.verdict


@dataclasses.dataclass(frozen=True)
class Bare:
    """All that the driver itself reads of a context."""

    size: int = 1
    threads: int = 1


def mortal(notes: Path, deaths: int) -> type:
    """A worker that notes its jobs and dies in the midst of `unet.b`, the first so many times."""

    class Mortal:
        def measure(self, context: object, job: Job) -> Iterator[JobResult]:
            with notes.open("a") as file:
                file.write(job.layers[0] + "\n")
            for number, (layer, scheme) in enumerate(job.pairs):
                if layer == "unet.b" and number and notes.read_text().count(layer) <= deaths:
                    os._exit(1)
                yield JobResult((layer, scheme), (Measurement(layer, scheme, "nsr", 0.5, 0.5, 4),))

    return Mortal


def measured_by_mortals(tmp_path: Path, deaths: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobResult]:
    monkeypatch.setattr(ray_engine, "RayActor", mortal(tmp_path / "notes", deaths))
    monkeypatch.setattr(ray_engine, "_portable", lambda _: None)  # the worker then need not import this file
    jobs = jobs_of("exhaustive", [(f"unet.{name}", scheme) for name in "abc" for scheme in ("w8a8", "w4a8")], 1)
    return ENGINES["ray"].run(Bare(), jobs, pytest.fail, Cluster(workers=1))  # type: ignore[arg-type]


def test_a_worker_that_dies_is_replaced_and_its_job_done_once(
    ray: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = list(measured_by_mortals(tmp_path, ray_engine.RETRIES, monkeypatch))
    pairs = [(m.layer, m.scheme) for row in found for m in row.measurements]
    assert pairs == [(f"unet.{name}", scheme) for name in "abc" for scheme in ("w8a8", "w4a8")]
    assert (tmp_path / "notes").read_text().split().count("unet.b") == ray_engine.RETRIES + 1


def test_a_job_whose_workers_all_die_ends_in_one_line(
    ray: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came before has been handed over."""
    found = []
    with pytest.raises(UserError, match=r"3 workers died on unet\.b \(.*--workers.*continues from there$") as caught:
        for row in measured_by_mortals(tmp_path, 99, monkeypatch):
            found += [(m.layer, m.scheme) for m in row.measurements]
    assert "\n" not in str(caught.value)
    assert found == [("unet.a", "w8a8"), ("unet.a", "w4a8"), ("unet.b", "w8a8")]


def test_errors_of_a_worker_are_raised_as_if_it_were_here(ray: Any) -> None:
    def refuse() -> None:
        raise UserError("the weights differ; copy them")

    with pytest.raises(UserError, match="^the weights differ; copy them$"):
        ray_engine._result(ray, ray.remote(refuse).remote(), Job("exhaustive", ()))


def test_a_cluster_that_is_not_there_is_one_line(run: Run, command_line: Any) -> None:
    command = [*run.words, "--engine", "ray"]
    for address in ("ray://127.0.0.1:10001", "nowhere", "127.0.0.1:1"):
        result = command_line(*command, "--address", address)
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1), result.stderr
        assert "HOST:PORT" in result.stderr
    assert not run.out.exists()
