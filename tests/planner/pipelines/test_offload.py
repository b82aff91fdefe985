"""Weights in files instead of memory: the same measurements, without memory for the weights."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bitplan
from bitplan.planner.errors import BAD_INPUT, UserError
from bitplan.planner.measurement.run import MeasureOptions, check_options
from bitplan.planner.pipelines import offload as offloading
from bitplan.planner.pipelines.offload import offloaded
from bitplan.planner.pipelines.sources import load_pipeline
from bitplan.planner.profiles.profile import Profile, open_profile
from tests import tiny

torch.set_num_threads(1)
OPTIONS: dict[str, Any] = tiny.SETTINGS | {"schemes": ("w8a8", "w4g64ma8"), "checks": 2}
ASYNCHRONOUS = "HF_DEACTIVATE_ASYNC_LOAD"


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline with files in float16, all weights of which are converted to be profiled."""
    folder = tmp_path_factory.mktemp("halves") / "pipeline"
    tiny.build_pipeline().to(torch.float16).save_pretrained(folder)
    return folder


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even a tiny model's weights go to files."""
    monkeypatch.setattr(offloading, "LEAST", 1 << 10)


def is_mapped(tensor: Tensor) -> bool:
    """Whether it lies in a file that offloading made."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, stop = (int(end, 16) for end in line.split()[0].split("-"))
        if start <= tensor.data_ptr() < stop:
            return offloading.PREFIX in line
    return False


def losses(store: Profile) -> dict[tuple[str, str, str], tuple[float, float, str]]:
    return {(m.layer, m.scheme, m.metric): (m.mean, m.stderr, m.source) for m in store.measurements()}


@pytest.mark.usefixtures("small")
def test_the_losses_are_the_same_to_the_bit(halves: Path, clip_folder: Path, tmp_path: Path) -> None:
    found = []
    for name, folder in (("with", tmp_path / "offload"), ("without", None)):
        out = tmp_path / f"{name}.profile"
        bitplan.profile(str(halves), out, clip=str(clip_folder), offload_folder=folder, **OPTIONS)
        with open_profile(out) as store:
            found.append((losses(store), [bytes(r.sums) for r in store.responses()], store.header()))
    assert found[0] == found[1]
    assert {source for _, _, source in found[0][0].values()} >= {"exhaustive"}
    assert list((tmp_path / "offload").iterdir()) == []


@pytest.mark.usefixtures("small")
def test_every_converted_weight_lies_in_a_file(halves: Path, tmp_path: Path) -> None:
    """Those of diffusers, and of transformers, which loads in threads unless it is told not to."""
    plain = load_pipeline(str(halves))
    with offloaded(tmp_path):
        pipe = load_pipeline(str(halves))
    for part in ("unet", "text_encoder", "vae"):
        theirs = dict(getattr(plain, part).named_parameters())
        for name, tensor in getattr(pipe, part).named_parameters():
            assert torch.equal(tensor, theirs[name])
            assert tensor.stride() == theirs[name].stride()
            assert is_mapped(tensor) == (tensor.nbytes >= 1 << 10)
    assert not any(is_mapped(tensor) for tensor in plain.unet.parameters())


def test_views_and_tensors_of_other_devices_are_left_alone(tmp_path: Path) -> None:
    given = torch.ones(256, 256)
    with offloaded(tmp_path):
        views = given[1:], given.T, given.detach(), given.add_(1)
        made = given.to(torch.float64), given.T.contiguous(), given.T.to(torch.bfloat16), torch.cat([given, given])
        small, empty = given[:1].double(), torch.ones(256, 256, device="meta").double()
    assert all(view.untyped_storage().data_ptr() == given.untyped_storage().data_ptr() for view in views)
    assert all(is_mapped(tensor) and bool((tensor == 2).all()) for tensor in made)
    assert made[2].stride() == (1, 256)
    assert not is_mapped(small) and empty.is_meta
    assert not is_mapped(given.double())  # outside


def test_all_is_as_before_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for before in (None, "0"):
        monkeypatch.delenv(ASYNCHRONOUS, raising=False)
        if before is not None:
            monkeypatch.setenv(ASYNCHRONOUS, before)
        with pytest.raises(KeyError), offloaded(tmp_path):
            assert os.environ[ASYNCHRONOUS] == "1"
            raise KeyError
        assert os.environ.get(ASYNCHRONOUS) == before
    with offloaded(None):
        assert not is_mapped(torch.ones(1 << 20))


def test_profiling_holds_no_memory_for_the_weights(tmp_path: Path) -> None:
    """A subject that a function makes: what it draws, or loads, lies in files, too. Without, 1.5 times the
    weights' own size is added."""
    command = [sys.executable, "-m", "tests.planner.support.deep", str(tmp_path), str(tmp_path / "offload")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["added"] < found["weights"] / 2


def test_check_and_evaluate_take_it(
    command_line: Any,
    profile: Path,
    tiny_folder: Path,
    clip_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folders: list[Path | None] = []
    monkeypatch.setattr(
        "bitplan.planner.pipelines.sources.offloaded", lambda folder: folders.append(folder) or offloaded(folder)
    )
    plan, offload = tmp_path / "p.plan.yaml", tmp_path / "offload"
    bitplan.solve(profile, plan, memory="60%")
    clip = ("--clip", clip_folder, "--offload-folder", offload)
    checked = command_line("check", profile, tiny_folder, *clip)
    evaluated = command_line(
        "evaluate", plan, tiny_folder, "--out", tmp_path / "report", "--count", 2, "--steps", 2, "--no-blocks", *clip
    )
    assert checked.exit_code == 0, checked.output
    assert evaluated.exit_code == 0, evaluated.output
    assert folders == [offload, offload]


def refused(command_line: Any, folder: Path, tmp_path: Path, *options: object) -> str:
    result = command_line("profile", "scenes", "--out", tmp_path / "x.profile", "--offload-folder", folder, *options)
    assert result.exit_code == BAD_INPUT
    assert result.output.count("\n") == 1
    return str(result.output)


def test_a_folder_that_cannot_be_made_is_refused(command_line: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot be written: Not a directory; name another" in refused(
        command_line, tmp_path / "file" / "o", tmp_path
    )


def test_a_folder_in_memory_is_refused(command_line: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert offloading._file_system(tmp_path) not in offloading.IN_MEMORY
    monkeypatch.setattr(offloading, "_file_system", lambda folder: "tmpfs")
    assert "is on a file system in memory (tmpfs); name a folder on a disk" in refused(command_line, tmp_path, tmp_path)


def test_shared_memory_is_told_to_be_memory() -> None:
    if not Path("/dev/shm").is_dir():
        pytest.skip("this system has no /dev/shm")
    assert offloading._file_system(Path("/dev/shm")) in offloading.IN_MEMORY


@pytest.mark.usefixtures("small")
def test_a_full_disk_is_told(command_line: Any, halves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    result = command_line("profile", halves, "--out", tmp_path / "x.profile", "--offload-folder", tmp_path / "o")
    assert result.exit_code == BAD_INPUT
    assert "No space left on device; name a folder with room for all converted weights" in result.output


def test_workers_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitplan.planner.measurement.engines.ray.missing", lambda site: None)
    with pytest.raises(UserError, match="not for workers; leave --engine ray out"):
        check_options(("w8a8",), "float32", MeasureOptions(engine="ray", folder=tmp_path))


def test_what_is_in_memory_already_is_refused(tmp_path: Path) -> None:
    one = bitplan.Subject({"one": nn.Sequential(nn.Linear(4, 4))}, lambda conditions, seed: torch.ones(1, 4), ["a"])
    with pytest.raises(UserError, match="subject is in memory already.*package.module:name of a function"):
        bitplan.profile(one, tmp_path / "x.profile", offload_folder=tmp_path)
