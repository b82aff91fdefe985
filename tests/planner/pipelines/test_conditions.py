from __future__ import annotations

from pathlib import Path

import pytest

from bitplan.planner.errors import UserError
from bitplan.planner.pipelines.conditions import (
    GENERAL,
    built_in_prompts,
    conditions_in,
    held_out_prompts,
    read_prompts,
)
from bitplan.planner.scenes.grammar import scene_of


def test_built_in_scenes_are_those_of_training_and_held_out_ones_are_not() -> None:
    train = [scene_of(prompt) for prompt in built_in_prompts(True, 64)]
    held = [scene_of(prompt) for prompt in held_out_prompts(64)]
    assert not any(scene.held_out for scene in train if scene) and None not in train
    assert all(scene.held_out for scene in held if scene) and None not in held
    for scenes in (train, held):
        assert sum(len(scene.things) == 2 for scene in scenes if scene) == 32
    assert len(set(held)) == 64


@pytest.mark.parametrize("count", [1, 2, 7, 8])
def test_lists_are_of_the_length_asked_for_and_begin_alike(count: int) -> None:
    for prompts in (lambda n: built_in_prompts(True, n), lambda n: built_in_prompts(False, n), held_out_prompts):
        assert len(prompts(count)) == count
        assert prompts(count) == prompts(8)[:count]


def test_seeds_give_other_prompts() -> None:
    assert built_in_prompts(True, 8, seed=0) != built_in_prompts(True, 8, seed=1)
    assert held_out_prompts(8, seed=0) != held_out_prompts(8, seed=1)


def test_there_are_only_so_many_general_prompts() -> None:
    assert len(set(GENERAL)) == len(GENERAL)
    with pytest.raises(UserError, match="--prompts"):
        built_in_prompts(False, len(GENERAL) + 1)


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_a_file_holds_one_prompt_a_line(start: bytes, tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_bytes(start + "a cat\r\n\n  ein Hund, süß \n\n".encode())
    assert read_prompts(path) == ["a cat", "ein Hund, süß"]


@pytest.mark.parametrize("content", [b"", b"\n \n\t\n", b"\xff\xfea\x00"])
def test_files_without_prompts(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match="p.txt"):
        read_prompts(path)


@pytest.mark.parametrize("name", ["p.yaml", "p.txt"])
def test_pictures_of_a_prompts_file_lie_below_the_current_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    for place in (tmp_path / "secret.png", here / "mine.png"):
        place.write_bytes(b"")
    (here / "link.png").symlink_to(tmp_path / "secret.png")
    monkeypatch.chdir(here)
    for text in ("../secret.png", str(tmp_path / "secret.png"), str(here / "mine.png"), "link.png"):
        Path(name).write_text(f"- image: {text}\n" if name == "p.yaml" else f"{text}\n")
        with pytest.raises(UserError, match=f"{name}: a picture lies below the current folder"):
            conditions_in(name)
        assert conditions_in([{"image": text}]) == [{"image": text}]  # the user's own words
    for text in ("mine.png", "../none.png", "a: b.png" * 99, "x/" * 300 + ".png"):
        Path(name).write_text(f"- image: '{text}'\n" if name == "p.yaml" else f"{text}\n")
        assert conditions_in(name) == [{"image": text} if name == "p.yaml" else text]
