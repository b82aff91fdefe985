"""Where a profile is written, and one that is full."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.planner.support.measured import silent
from tests.planner.support.profile_writer import fill


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.profile"


@pytest.fixture(scope="session")
def full(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("full") / "full.profile"
    fill(str(path), silent)
    return path
