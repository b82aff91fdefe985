"""The tiny model that the whole story is told on, built and profiled once a session."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import bitplan
from bitplan.planner.cli import main
from bitplan.planner.pipelines.sources import load_pipeline
from bitplan.planner.verbs.measure import profile as workflow__profile
from tests import tiny


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved pipeline with random weights."""
    return tiny.save_pipeline(tmp_path_factory.mktemp("tiny") / "pipeline")


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_clip(tmp_path_factory.mktemp("tiny-clip") / "clip")


@pytest.fixture(scope="session")
def finished(tiny_folder: Path, clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished profile of the tiny pipeline, by probes."""
    return workflow__profile(
        str(tiny_folder), tmp_path_factory.mktemp("finished") / "t.profile", clip=str(clip_folder), **tiny.SETTINGS
    )


@pytest.fixture(scope="session")
def oracle(tiny_folder: Path, clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, every loss measured."""
    out = tmp_path_factory.mktemp("oracle") / "t.profile"
    return workflow__profile(str(tiny_folder), out, clip=str(clip_folder), method="exhaustive", **tiny.SETTINGS)


@pytest.fixture(scope="session")
def latency(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """A budget on milliseconds that some plan within the other options meets, and the best such plan does not."""
    path = tmp_path_factory.mktemp("latency") / "p.yaml"

    def between(**options: Any) -> str:
        best, fastest = (
            bitplan.solve(finished, path, objective=objective, **options).predictions["total"]["ms"]
            for objective in ("both", "ms=1")
        )
        assert fastest < best
        return f"{(best + fastest) / 2}ms"

    return between


@pytest.fixture
def profile(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished profile that may be spoilt."""
    return Path(shutil.copy(finished, tmp_path / "t.profile"))


@pytest.fixture
def pipe(tiny_folder: Path) -> Any:
    return load_pipeline(str(tiny_folder))


@pytest.fixture
def command_line() -> Any:
    """Runs the command line in this process."""

    def run(*args: object) -> Result:
        return CliRunner().invoke(main, [str(arg) for arg in args])

    return run
