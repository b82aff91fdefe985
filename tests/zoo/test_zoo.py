"""Every animal of the zoo lives through the whole story."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch

from tests import tiny
from tests.zoo import ZOO
from tests.zoo.story import Story, tell

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def story_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Story]:
    """Each story is told once."""
    clip = tiny.save_clip(tmp_path_factory.mktemp("zoo-clip") / "clip")
    return cache(lambda name: tell(ZOO[name], clip, tmp_path_factory.mktemp(name)))


@pytest.mark.parametrize("name", ZOO)
def test_the_story_of(name: str, story_of: Callable[[str], Story]) -> None:
    animal, story = ZOO[name], story_of(name)
    assert story.layers == story.ran and story.layers | story.unused == story.present
    assert story.iterating == animal.iterates
    assert not story.missing and (story.alone <= 0.2 * story.probed or (animal.refused and not story.probed))
    before, after = story.bytes
    assert 0 < after <= 0.4 * before
    assert story.same("restored", "full")
    assert 0 < story.near("fake") < 0.7 and 0 < story.near("int") < 0.7
    assert story.same("loaded", "int")


def test_each_is_what_it_is_called() -> None:
    assert {type(animal.build()).__name__ for animal in ZOO.values()} == set(ZOO)
