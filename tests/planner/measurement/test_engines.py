"""Jobs and their shares, workers built from a setup, and the engine in this process."""

from __future__ import annotations

import dataclasses
import importlib.util
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import bitplan
from bitplan.planner.errors import UserError
from bitplan.planner.graph.layers import from_json
from bitplan.planner.measurement import worker as workers
from bitplan.planner.measurement.engines import ENGINES, Cluster, engine_named
from bitplan.planner.measurement.engines.ray import Allotment, allotment_of
from bitplan.planner.measurement.jobs import Job, jobs_of, pending_of, share_of
from bitplan.planner.measurement.methods import METHODS, run_job
from bitplan.planner.measurement.worker import Settings, Worker, WorkerSetup, open_worker, worker_of
from bitplan.planner.pipelines.generation import Generation
from bitplan.planner.pipelines.sources import load_subject
from bitplan.planner.profiles.profile import Pair, Profile, content_digest, open_profile
from bitplan.sensitivity.calibration.ranges import ActivationRange
from bitplan.sensitivity.metrics import TEXT_TO_IMAGE
from bitplan.sensitivity.runs.exhaustive import measure
from bitplan.sensitivity.table import Measurement
from tests import tiny

PAIRS: tuple[Pair, ...] = (("unet.conv_in", "w2ma8"), ("unet.conv_in", "w8a8t"), ("unet.conv_out", "w8a8"))


def setup_of(store: Profile) -> WorkerSetup:
    """What a driver that made this profile would send to its workers."""
    header, settings = store.header(), dict(store.header()["settings"])
    settings["generation"] = Generation(**settings["generation"])
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
    ranges = {layer: ActivationRange(**seen) for layer, seen in store.ranges().items()}
    model, threads = header["model"], header["machine"]["threads"]
    graph = from_json(store.graph())
    seen = graph, model["fingerprint"], "images", ("unet",), ("unet",), torch.zeros(1, 3, 16, 16)
    return WorkerSetup(*seen, Settings(model["name"], **settings), ranges, 1, threads)


@pytest.fixture(scope="module")
def setup(finished: Path) -> WorkerSetup:
    with open_profile(finished) as store:
        return setup_of(store)


@pytest.fixture(scope="module")
def opened(setup: WorkerSetup) -> Worker:
    """As in another process: of the context alone, after its journey."""
    return open_worker(pickle.loads(pickle.dumps(setup)))


@pytest.fixture(scope="module")
def known(oracle: Path) -> dict[Pair, list[Measurement]]:
    with open_profile(oracle) as store:
        found: dict[Pair, list[Measurement]] = {}
        for m in store.measurements():
            found.setdefault((m.layer, m.scheme), []).append(m)
    return found


def by_name(rows: Any) -> list[Measurement]:
    return sorted(rows, key=lambda m: m.metric)


@st.composite
def grids(draw: st.DrawFn) -> tuple[Pair, ...]:
    layers, schemes = draw(st.integers(0, 12)), draw(st.integers(1, 4))
    grid = [(f"unet.{i}", f"s{j}") for i in range(layers) for j in range(schemes)]
    return tuple(pair for pair in grid if draw(st.booleans()))


@given(grids(), st.integers(1, 5), st.integers(1, 4))
def test_every_pair_is_in_one_job_of_one_share(pairs: tuple[Pair, ...], layers: int, shares: int) -> None:
    jobs = jobs_of("exhaustive", pairs, layers)
    assert tuple(pair for job in jobs for pair in job.pairs) == pairs
    assert all(len(job.layers) == layers for job in jobs[:-1])
    assert len({layer for job in jobs for layer in job.layers}) == sum(len(job.layers) for job in jobs)
    parts = [share_of(pairs, (k + 1, shares)) for k in range(shares)]
    assert sorted(pair for part in parts for pair in part) == sorted(pairs)
    assert sum(len({layer for layer, _ in part}) for part in parts) == len({layer for layer, _ in pairs})


@given(grids(), st.integers(1, 5), st.data())
def test_what_is_done_is_done_no_more(pairs: tuple[Pair, ...], layers: int, data: st.DataObject) -> None:
    done = {pair for pair in pairs if data.draw(st.booleans())}
    left = pending_of(jobs_of("exhaustive", pairs, layers), done)
    assert [pair for job in left for pair in job.pairs] == [pair for pair in pairs if pair not in done]
    assert all(job.pairs for job in left)


def test_a_worker_of_a_pickled_setup_measures_the_same(opened: Worker, known: Any) -> None:
    pairs = tuple(pair for pair in known if pair[0] in ("unet.conv_in", "unet.conv_out"))
    found = list(run_job(opened, Job("exhaustive", pairs)))
    assert [by_name(row.measurements) for row in found] == [by_name(known[pair]) for pair in pairs]
    assert len(found) > 6


def test_other_weights_at_a_worker_are_refused(setup: WorkerSetup) -> None:
    with pytest.raises(UserError, match="same files on every machine"):
        open_worker(dataclasses.replace(setup, fingerprint="0" * 64))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_finds_every_pair_once_and_in_order(opened: Worker, known: Any, method: str) -> None:
    pairs = tuple(pair for pair in known if pair[0].endswith("to_q"))
    found = list(run_job(opened, Job(method, pairs)))
    assert [row.pair for row in found] == list(pairs)
    for row in found:
        assert {(m.layer, m.scheme) for m in row.measurements} == ({row.pair} if method == "exhaustive" else set())
        assert row.responses.keys() == row.readings.keys() == (set() if method == "exhaustive" else set(TEXT_TO_IMAGE))


def test_the_local_engine_is_plain_measuring(opened: Worker, known: Any, setup: WorkerSetup) -> None:
    """The same losses as `sensitivity` gives when asked for all at once, however they are cut into jobs."""
    pairs = [pair for pair in known if pair[0].endswith(("conv_in", "to_k", "conv_shortcut"))]
    variants = {pair: lambda pair=pair: opened.variant(*pair, {}) for pair in pairs}
    prompts = setup.settings.prompts
    encoder = opened.metric_set.encoder
    plain = list(measure(variants, opened.replay.run, opened.replay.reference, encoder=encoder, prompts=prompts))
    for layers in (1, 3):
        jobs = jobs_of("exhaustive", pairs, layers)
        found = list(ENGINES["local"].run(setup, jobs, lambda: opened, Cluster()))
        assert [list(row.measurements) for row in found] == plain


def test_the_pipeline_is_loaded_once(
    tiny_folder: Path, clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a share is measured alone, then the rest: together the same as all at once."""
    for name in ("load_subject", "choose_metrics"):
        monkeypatch.setattr(workers, name, lambda *_: pytest.fail("loaded again"))
    options: Any = {"clip": str(clip_folder), "checks": 0, **tiny.SETTINGS, "schemes": ("w8a8",)}
    bitplan.profile(str(tiny_folder), tmp_path / "whole.profile", **options)
    bitplan.profile(str(tiny_folder), tmp_path / "shares.profile", part="2/3", **options)
    with open_profile(tmp_path / "shares.profile") as some, open_profile(tmp_path / "whole.profile") as whole:
        assert not some.costs()
        assert 0 < len(some.measured()) < len(whole.measured())
        assert some.measured() < whole.measured()
    bitplan.profile(str(tiny_folder), tmp_path / "shares.profile", **options)
    with open_profile(tmp_path / "shares.profile") as some, open_profile(tmp_path / "whole.profile") as whole:
        assert content_digest(some) == content_digest(whole)
        assert len(some.costs()) == len(whole.costs())


def test_a_loaded_pipeline_is_set_up_like_an_opened_one(setup: WorkerSetup, opened: Worker) -> None:
    settings = setup.settings
    subject = load_subject(settings.pipeline, settings.generation)
    job = Job("exhaustive", PAIRS[:1])
    ours, theirs = (list(run_job(worker, job)) for worker in (worker_of(setup, subject), opened))
    assert [(row.pair, row.measurements) for row in ours] == [(row.pair, row.measurements) for row in theirs]
    assert ours[0].measurements


def node(cpus: float, memory: int = 10**12, alive: bool = True) -> dict[str, Any]:
    return {"Alive": alive, "Resources": {"CPU": cpus, "memory": float(memory)}}


@pytest.mark.parametrize(
    ("nodes", "threads", "workers", "allotment"),
    [
        ([node(2)], 1, None, Allotment(2, 1)),
        ([node(2)], 1, 1, Allotment(1, 1)),  # what is left over stays free: it must not become threads
        ([node(8)], 2, None, Allotment(4, 2)),
        ([node(8)], 3, None, Allotment(2, 3)),
        ([node(2)], 8, None, Allotment(1, 2)),  # 8 threads on 2 CPUs
        ([node(2), node(4)], 3, None, Allotment(1, 3)),
        ([node(2)], 2, 2, Allotment(2, 1)),  # as asked for, though 2 threads share a CPU
        ([node(8, memory=250)], 2, None, Allotment(2, 2)),  # each needs 100
        ([node(8, memory=50)], 1, None, Allotment(1, 1)),  # one is tried anyhow
        ([node(3), node(3)], 2, 3, Allotment(3, 1)),  # 2 CPUs each would fit but twice
        ([node(4), node(2)], 2, 3, Allotment(3, 2)),
        ([node(8), node(8, alive=False)], 1, None, Allotment(8, 1)),
        ([{"Alive": True, "Resources": {}}, node(1)], 1, None, Allotment(1, 1)),  # a head that takes no work
    ],
)
def test_the_allotment_fits_the_cluster(nodes: Any, threads: int, workers: int | None, allotment: Allotment) -> None:
    assert allotment_of(nodes, threads, 100, workers) == allotment


@pytest.mark.parametrize(("nodes", "workers"), [([node(2)], 3), ([], None), ([node(0)], None)])
def test_more_workers_than_cpus_are_refused(nodes: Any, workers: int | None) -> None:
    with pytest.raises(UserError, match=r"\d CPUs for \d workers.*--workers"):
        allotment_of(nodes, 2, 100, workers)


def test_a_round_is_for_as_many_workers_as_there_will_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert [ENGINES["ray"].worker_count(Cluster(), threads) for threads in (1, 3, 16)] == [8, 2, 1]
    assert ENGINES["ray"].worker_count(Cluster(workers=5), 3) == 5
    assert ENGINES["local"].worker_count(Cluster(), 1) == 1


@pytest.mark.parametrize(
    ("name", "cluster", "hint"),
    [
        ("rya", Cluster(), "choose local or ray"),
        ("local", Cluster(workers=2), "--engine ray"),
        ("local", Cluster("127.0.0.1:6379"), "--engine ray"),
        ("ray", Cluster(workers=0), "at least 1"),
    ],
)
def test_engines_that_cannot_be_are_refused(name: str, cluster: Cluster, hint: str) -> None:
    with pytest.raises(UserError, match=hint):
        engine_named(name, cluster)


def test_an_engine_that_is_not_installed_says_so(
    command_line: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "ray" else there(name, *rest))
    result = command_line("profile", "scenes", "--out", tmp_path / "x.profile", "--engine", "ray")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "pip install 'bitplan[ray]'" in result.stderr
    assert engine_named("local", Cluster()).missing() is None


@pytest.mark.parametrize("part", ["0/3", "4/3", "1", "a/b", "1/0", "-1/3"])
def test_shares_that_are_none_are_refused(part: str, command_line: Any, tmp_path: Path) -> None:
    result = command_line("profile", "scenes", "--out", tmp_path / "x.profile", "--part", part)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "1/3, 2/3 and 3/3" in result.stderr
