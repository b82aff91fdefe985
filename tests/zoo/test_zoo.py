"""Every pipeline of the zoo passes all stages, and the docs show the results."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch

from tests import tiny
from tests.zoo import ZOO
from tests.zoo.page import row_of, rows_in
from tests.zoo.story import MEMORY, tell

torch.set_num_threads(1)
PAGE = Path(__file__).parents[2] / "docs" / "pipelines.md"
MEASURED = ("bytes",)  # what may differ from machine to machine


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_clip(tmp_path_factory.mktemp("zoo-clip") / "clip")


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory where possible, since a profile waits for the disk after each measurement."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as place:
        yield Path(place)


@pytest.mark.parametrize("name", ZOO)
def test_the_story_of(name: str, clip: Path, folder: Path) -> None:
    animal, story = ZOO[name], tell(ZOO[name], clip, folder)
    assert story.layers <= story.ran <= story.present == story.present & (story.layers | story.unplanned.keys())
    assert all(story.unplanned[address] for address in story.ran - story.layers)
    assert story.iterating == animal.iterates
    assert story.alone.keys() <= story.planned and not any(story.alone.values())
    assert 0 < story.bytes[1] <= MEMORY * story.bytes[0]
    assert story.near("fake") == pytest.approx(story.near("int"), abs=0.1)
    found, told = row_of(animal, story), rows_in(PAGE.read_text("utf-8"))[name]
    assert {key: cell for key, cell in found.items() if key not in MEASURED} == {
        key: cell for key, cell in told.items() if key not in MEASURED
    }
    assert [found[key] for key in ("fake", "int", "restored", "loaded")] == ["near", "near", "same", "same"]


def test_the_page_is_about_the_zoo() -> None:
    """The page has at least twenty pipelines, by their names."""
    assert list(rows_in(PAGE.read_text("utf-8"))) == list(ZOO) and len(ZOO) >= 20
    for animal in ZOO.values():
        assert type(animal.build()).__name__ == animal.name
