from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from bitplan.planner.errors import UserError
from bitplan.planner.pipelines.conditions import (
    GENERAL,
    built_in_prompts,
    check_pictures,
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


def test_only_ends_of_lines_end_a_line(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_text("a\u2028b\rc\x85d\n\u2029", "utf-8")
    assert read_prompts(path) == ["a\u2028b", "c\x85d"]


ENTRIES = [
    "a \U0001f600 \u2028 b",
    {"prompt": "a\tb", "height": 8, "guidance_scale": 1.5, "x": [None, True, {"a": "b"}]},
]


@pytest.mark.parametrize("ascii", [True, False])
@pytest.mark.parametrize("indent", [None, 1, "\t"])
def test_json_is_read_as_json(ascii: bool, indent: int | str | None, tmp_path: Path) -> None:
    """YAML reads a pair of escapes as two halves of a character, and refuses tabs in front of a line."""
    path = tmp_path / "p.json"
    path.write_text(json.dumps(ENTRIES, ensure_ascii=ascii, indent=indent), "utf-8")
    assert conditions_in(path) == ENTRIES


def test_yaml_is_read_as_yaml(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump(ENTRIES, allow_unicode=False), "utf-8")
    assert conditions_in(path) == ENTRIES


def test_words_of_yaml_files_are_texts(tmp_path: Path) -> None:
    """YAML 1.1 would read false, true, 969, 8 and a date."""
    path = tmp_path / "p.yaml"
    path.write_text("- no\n- off\n- {a: Yes, b: 16:9, c: 010, d: 2001-01-01, e: [1, -2.5, 1e3, true, null, ~]}\n")
    rest = {"a": "Yes", "b": "16:9", "c": "010", "d": "2001-01-01", "e": [1, -2.5, 1000.0, True, None, None]}
    assert conditions_in(path) == ["no", "off", rest]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [("p.yaml", "- {a: !!timestamp 2001-01-01}", "entry 1 .* a date"), ("p.yaml", "- x\n- {a: .nan}", "entry 2 .* nan"),
     ("p.yaml", "- {a: !!binary aGk=}", "a bytes"), ("p.yaml", "- {a: !!set {b}}", "a set"),
     ("p.yaml", "- {1: a}", "a key that is not text"), ("p.yaml", "- {a: 1, a: 2}", "given twice"),
     ("p.yaml", "- &a {b: c}\n- *a", "aliases"), ("p.yaml", "- !!bool maybe", "cannot be read"),
     ("p.yaml", "- !!timestamp nope", "cannot be read"), ("p.yaml", '- "\\x1b[2J"', "character"),
     ("p.json", '[{"a": 1, "a": 2}]', "given twice"), ("p.json", '[{"a": NaN}]', "NaN"),
     ("p.json", '["\\ud800"]', "character"), ("p.json", '[{"a": 1e999}]', "inf"), ("p.json", "[" * 9999, "recursion"),
     ("p.json", "[1]", "not a list of prompts"),
     ("p.yaml", "- a\n- 42", "entry 2 is 42, of type int; .* quotes"),
     ("p.yaml", "- true", "entry 1 is True, of type bool"),
     ("p.yaml", "a: b", "not a list of prompts"),
     ("p.txt", "a\nb\x00\n", "line 2 .* control"),
     ("p.txt", "a\x0cb", "line 1 .* control")],
)  # fmt: skip
def test_what_is_no_plain_data_is_refused_in_one_line(name: str, content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content, "utf-8")
    with pytest.raises(UserError, match=words) as refused:
        conditions_in(tmp_path / name)
    assert name in str(refused.value) and "\n" not in str(refused.value)


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
    for text in ("../secret.png", str(tmp_path / "secret.png"), "link.png"):
        Path(name).write_text(f"- image: {text}\n" if name == "p.yaml" else f"{text}\n")
        with pytest.raises(UserError, match=f"{name} names the picture .* below neither the folder of that file"):
            conditions_in(name)
        assert conditions_in([{"image": text}]) == [{"image": text}]  # the user's own words
        with pytest.raises(UserError, match="X.profile names the picture .* not below the current folder"):
            check_pictures([{"image": text}], "X.profile")
    for text in (
        "./mine.png",
        "../here/mine.png",
        str(here / "mine.png"),
        str(tmp_path / "here" / ".." / "here" / "mine.png"),
    ):
        Path(name).write_text(f"- image: {text}\n" if name == "p.yaml" else f"{text}\n")
        (found,) = conditions_in(name) or []
        assert Path(found["image"] if name == "p.yaml" else found).samefile(here / "mine.png")
        check_pictures(found, "X.profile")
    for text in ("mine.png", "../none.png", "a: b.png" * 99, "x/" * 300 + ".png"):
        Path(name).write_text(f"- image: '{text}'\n" if name == "p.yaml" else f"{text}\n")
        assert conditions_in(name) == [{"image": text} if name == "p.yaml" else text]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("p.yaml", "- prompt: " + "[" * 40 + "]" * 40 + "\n", "entry 0.prompt.0.0"),
        ("p.yaml", "- prompt: '" + "x" * 70_000 + "'\n", "entry 0.prompt: 'xxx"),
        ("p.txt", "a cat\n" + "x" * 2_000_000, "entry 1: 'xxx"),
    ],
)
def test_entries_beyond_the_limits_are_refused_where_they_are(name: str, text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, "utf-8")
    with pytest.raises(UserError) as caught:
        conditions_in(tmp_path / name)
    assert words in str(caught.value)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400 + len(str(tmp_path))
