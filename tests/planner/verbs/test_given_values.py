"""Values that are given twice, are empty or say nothing are refused in one line; others are read as they are meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import bitplan
from bitplan.planner.choice.problem import weighed
from bitplan.planner.choice.request import Request
from bitplan.planner.errors import UserError
from bitplan.planner.verbs.texts import yaml_values


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        ("quality=0", "quality=0 has no weight above 0, .* such as quality=1"),
        ("quality=0,nsr=0.0", "no weight above 0"),
        ("quality=1,quality=2", "names quality twice"),
        ("lexicographic:quality, quality", "names quality twice"),
        ("", "a loss without a name"),
        ("quality=1,", "a loss without a name"),
        ("lexicographic:", "a loss without a name"),
        ("quality=", "'quality=' is not a weight"),
        ("quality=1e-320", "weight of quality 1e-320 is too small for a float; give 0, or at least 2.23e-308"),
        ("nsr=1,quality=1e-400", "weight of quality 1e-400 is too small"),
        ("nsr=4,quality=1e-20", "weight 1e-20 of quality has no effect beside 4 of nsr; .* lexicographic:nsr,quality"),
    ],
)
def test_objectives_that_say_nothing_or_two_things(objective: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Request(objective=objective)


@pytest.mark.parametrize("small", ["1e-320", "1e-400", "-4e-324"])
@pytest.mark.parametrize(
    "words",
    [
        ("solve", "--gap="), ("solve", "--slack="), ("solve", "--bits="), ("solve", "--time-limit="),
        ("solve", "--confidence="), ("solve", "--cap=quality="), ("sweep", "--by=bits", "--from="),
        ("sweep", "--by=quality", "--to="),
    ],
)  # fmt: skip
def test_numbers_that_a_float_rounds_to_nothing(
    words: tuple[str, ...], small: str, finished: Path, tmp_path: Path, command_line: Any
) -> None:
    *others, last = words
    done = command_line(*others, finished, "--out", tmp_path / "out", last + small)
    assert done.exit_code == 2 and f"{small} is too small for a float" in done.output, done.output
    assert not list(tmp_path.iterdir())


def test_an_objective_of_which_only_zeros_were_measured() -> None:
    assert weighed({"quality": 1.0, "alignment": 1.0}, {"quality": ()}) == {"quality": 1.0}
    with pytest.raises(UserError, match="measured no alignment; it has quality"):
        weighed({"quality": 0.0, "alignment": 1.0}, {"quality": ()})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--memory", "40%", "--memory", "50%"), "--memory is given twice; give it once"),
        (("--memory=40%", "--objective", "quality", "--objective", "alignment"), "--objective is given twice"),
        (("--cap", "quality=w8a8", "--cap", "quality=1"), "--cap quality is given twice, as w8a8 and 1"),
    ],
)
def test_an_option_is_given_once(
    words: tuple[str, ...], said: str, finished: Path, tmp_path: Path, command_line: Any
) -> None:
    done = command_line("solve", finished, "--out", tmp_path / "p.yaml", *words)
    assert done.exit_code == 2 and said in done.output and done.output.count("\n") == 1
    assert not (tmp_path / "p.yaml").exists()


def test_flags_and_lists_may_be_given_several_times(finished: Path, tmp_path: Path, command_line: Any) -> None:
    keeps = ("--keep", "unet.conv_in", "--keep", "unet.conv_out")
    done = command_line("solve", finished, "--out", tmp_path / "p.yaml", "--memory", "60%", *keeps, "-q", "-q")
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"schemes": ["keep"]}, "--schemes keep leaves nothing to measure"),
        ({"schemes": []}, "leaves nothing to measure"),
        ({"schemes": ["w8a8", "w8a8"]}, "schemes has w8a8 twice"),
        ({"components": ["unet", "unet"]}, "components has unet twice"),
        ({"metrics": ["psnr", "psnr"]}, "metric has psnr twice"),
        ({"call": {"generator": 5}}, "generator is set by --seed"),
    ],
)
def test_lists_of_a_measurement(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        bitplan.profile("no/pipeline", tmp_path / "x.profile", **options)


def test_a_file_is_named_once_by_whatever_path(finished: Path, tmp_path: Path) -> None:
    other = finished.parent / ".." / finished.parent.name / finished.name
    with pytest.raises(UserError, match="profiles has .* twice"):
        bitplan.merge([finished, other], tmp_path / "m.profile")


def test_an_empty_list_is_no_default(tmp_path: Path, command_line: Any) -> None:
    done = command_line("profile", "no/pipeline", "--out", tmp_path / "x.profile", "--schemes", "")
    assert done.exit_code == 2 and "'' has no names; give some, or leave the option out" in done.output


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("512", 512), ("0.5", 0.5), ("true", True), ("null", None), ("[1, 2]", [1, 2]), ("{a: b}", {"a": "b"}),
        ("'no'", "no"), ("no", "no"), ("off", "off"), ("16:9", "16:9"), ("010", "010"), ("2024-01-01", "2024-01-01"),
        ("a: b", "a: b"), ("- a", "- a"), ("a fan #1 of it", "a fan #1 of it"), ("512 #", "512 #"),
    ],
)  # fmt: skip
def test_values_of_calls_are_read_as_meant(text: str, value: object) -> None:
    assert yaml_values("--call")([f"x={text}"]) == {"x": value}


def test_a_link_to_itself_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ValueError, match=r"^[^\n]*loop[^\n]*$"):
        bitplan.merge([tmp_path / "loop", tmp_path / "other"], tmp_path / "out")
