"""The map of a plan in the terminal shows each layer once, in any width and without colour; the progress line."""

from __future__ import annotations

import io
import math
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from rich.color import Color
from rich.console import Console

import bitplan
from bitplan.planner import progress
from bitplan.planner.graph.layers import LayerGraph, from_json
from bitplan.planner.profiles.profile import open_profile
from bitplan.planner.progress import Course, course_of, current, expected_of
from bitplan.planner.views.bitmap import ALL, COLOURS, FULL, bitmap_of
from bitplan.plans.plan import Plan
from bitplan.plans.scheme import WEIGHT_BITS, parse_scheme

MODEL = {"name": "m", "fingerprint": "f", "architecture": "a", "components": ["unet"]}
SCHEMES = ("w2ma8", "w3g64ma8", "w4a8", "w5ma8", "w6a8", "w8a8t", "fp8a16", "keep")


@pytest.fixture(scope="module")
def seen(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, LayerGraph]:
    plan = bitplan.solve(finished, tmp_path_factory.mktemp("map") / "p.plan.yaml", memory="25%")
    with open_profile(finished) as store:
        return plan, from_json(store.graph())


def drawn(plan: Plan, graph: LayerGraph | None = None, width: int = 80, **options: Any) -> str:
    console = Console(file=io.StringIO(), width=width, **options)
    console.print(bitmap_of(plan, graph))
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def deep(count: int) -> Plan:
    """Returns a plan with many layers in blocks of all sizes, the largest wider than a terminal."""
    blocks = ["unet.conv_in"] + [f"unet.down.{i}.x.{k}" for i in range(5) for k in range(3**i)]
    rest = [f"unet.up.0.x.{k}" for k in range(count - len(blocks))]
    return Plan(MODEL, {layer: SCHEMES[i % len(SCHEMES)] for i, layer in enumerate(blocks + rest)})


def cells(text: str, rows: tuple[str, ...]) -> str:
    """Returns the characters of all layers, row after row of the text."""
    lines = (line for line in text.splitlines() if line.startswith(rows))
    return "".join(re.sub(r"\s", "", line.removeprefix(next(r for r in rows if line.startswith(r)))) for line in lines)


@pytest.mark.parametrize("width", (20, 40, 80, 200))
def test_each_layer_is_drawn_once_in_any_width(width: int) -> None:
    plan = deep(800)
    text = drawn(plan, width=width)
    bits = [parse_scheme(scheme).weight for scheme in plan.schemes.values()]
    assert cells(text, (ALL,)) == "".join(FULL if each.kind == "keep" else str(each.bits) for each in bits)
    label = len(ALL) + 2
    assert all(len(line) <= max(width, label + 4) for line in text.splitlines())


def test_rows_are_roles_and_columns_are_blocks_in_their_order(seen: tuple[Plan, LayerGraph]) -> None:
    plan, graph = seen
    drawing, text = bitmap_of(plan, graph), drawn(plan, graph, 200)
    roles = {layer.address: layer.role for layer in graph.layers}
    for role, row in drawing.rows.items():
        assert sum(map(len, row.values())) == sum(each == role for each in roles.values())
    assert sum(len(part) for row in drawing.rows.values() for part in row.values()) == len(plan.schemes)
    order = [place for place, name in enumerate(planner_roles()) if name in drawing.rows]
    assert [planner_roles()[place] for place in order] == list(drawing.rows)
    assert len(cells(text, tuple(drawing.rows))) == len(plan.schemes)
    assert all(a < b for a, b in pairwise(int(n) for n in re.findall(r"\d+", text.splitlines()[0])))
    assert "conv_in" in text.splitlines()[-1] and "(full precision)" in text or "keep" not in plan.schemes.values()


def planner_roles() -> list[str]:
    from bitplan.planner.graph.layers import ROLES

    return list(ROLES)


def test_colour_says_nothing_that_characters_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = deep(100)
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured = drawn(plan, force_terminal=True, color_system="truecolor")
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == drawn(plan)
    monkeypatch.setenv("NO_COLOR", "1")
    plain = drawn(plan, force_terminal=True, color_system="truecolor")
    assert not re.search(r"\x1b\[[\d;]*[34]8;", plain)
    assert "\x1b" not in drawn(plan)  # no terminal


def test_a_terminal_without_such_characters_gets_letters() -> None:
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding="ascii") as file:
        Console(file=file, width=60).print(bitmap_of(deep(100)))
        file.flush()
        assert raw.getvalue().decode() == drawn(deep(100), width=60).translate(str.maketrans("·×", "Fx"))


def test_every_character_can_be_read_on_its_colour() -> None:
    assert {str(bits) for bits in WEIGHT_BITS} == set(COLOURS)

    def luminance(colour: str) -> float:  # WCAG 2, relative luminance
        parts = (part / 255 for part in Color.parse(colour).get_truecolor())
        r, g, b = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    for back, front in COLOURS.values():
        light, dark = sorted((luminance(back), luminance(front)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5
    shades = [luminance(COLOURS[bits][0]) for bits in sorted(COLOURS)]
    assert all(a - b > 0.02 for a, b in pairwise(shades))  # darker for more, and told apart by lightness alone


def test_solve_shows_map_and_table_by_role(command_line: Any, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.plan.yaml"
    text = command_line("solve", finished, "--out", out, "--memory", "25%").stdout
    assert "| role " in text and "bits × layers:" in text and "cross-attention  " in text
    alone = command_line("inspect", out).stdout
    assert "| role " not in alone and f"\n{ALL}" in alone
    assert command_line("inspect", out, "--profile", finished).stdout in text


class Clock:
    """A clock that advances on request."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(progress, "time", found)
    return found


def test_the_time_left_is_that_of_all_phases(clock: Clock) -> None:
    course = Course("x", visible=False)
    assert course.remaining(clock.now) is None
    course.expect({"costs": 10.0, "estimates": 60.0, "checks": 20.0})
    with course.phase("costs", 100, "candidates"):
        assert course.remaining(clock.now) == 90.0
        for _ in range(50):
            clock.now += 0.4
            course.advance()
        assert course.remaining(clock.now) == pytest.approx(20.0 + 80.0)  # its own pace, twice as slow as expected
    with course.phase("estimates", 8, "prompts", 4, each=4 / 400):  # four prompts are of an earlier run
        assert course.remaining(clock.now) == pytest.approx(60 + 20)
        clock.now += 10
        course.hint(200)
        assert course.remaining(clock.now) == pytest.approx(10 + 20)
        course.advance(100)
        assert course.remaining(clock.now) == pytest.approx(10 + 20)  # what was hinted at does not count twice
        course.advance(300)
        assert course.remaining(clock.now) == pytest.approx(20)
    assert course.spent == pytest.approx({"costs": 20.0, "estimates": 10.0})
    course.deadline = clock.now + 33
    assert course.remaining(clock.now) == pytest.approx(33)


def test_the_guess_gives_way_to_the_pace_step_by_step(clock: Clock) -> None:
    course = Course("x", visible=False)
    course.expect({"estimates": 100.0})
    lefts = []
    with course.phase("estimates", 100, "prompts"):
        for _ in range(100):
            clock.now += 3.0
            course.advance()
            lefts.append(course.remaining(clock.now))
    assert lefts[0] is not None and 100 < lefts[0] < 115 and lefts[24] == pytest.approx(225) and lefts[-1] == 0
    assert all(math.isfinite(left) for left in lefts if left is not None)


def test_expected_seconds_fall_with_what_is_done() -> None:
    whole = expected_of(0.5, 8, 8, 9, {"costs": 100, "checks": 16})
    rest = expected_of(0.5, 8, 4, 9, {"costs": 0, "checks": 4})
    assert whole.keys() == rest.keys() == {"costs", "estimates", "checks"}
    assert rest["estimates"] == whole["estimates"] / 2 and rest["checks"] == whole["checks"] / 4 and not rest["costs"]


def test_the_line_names_phase_count_and_time(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    with course_of("profile") as course:
        assert current() is course
        with course.phase("tracing"):
            pass
        course.expect({"costs": 5.0})
        with course.phase("costs", 1_200, "timings", 200):
            pass
    assert current() is not course
    assert re.fullmatch(
        "profile: 00:00 elapsed\nprofile: tracing: 00:00 elapsed\n"
        "profile: costs 200/1,200 timings: 0%, 00:00 elapsed, 00:05 remaining\n"
        "profile: done: 100%, 00:00 elapsed, 00:00 remaining\n",
        re.sub(r"00:0\d elapsed", "00:00 elapsed", capsys.readouterr().err),
    )


def test_a_log_has_whole_lines(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    with course_of("solve"):
        for _ in progress.bar(range(3), "measuring", 3, "plan"):
            pass
    err = capsys.readouterr().err
    assert "\r" not in err and "\x1b" not in err
    assert re.match(
        r"solve: 00:0\d elapsed\nmeasuring: 0 of 3, .*\nmeasuring: 3 of 3, .*\nsolve: done: 100%, .*\n$", err
    )


def test_a_terminal_has_one_line_that_changes(monkeypatch: Any) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setattr(progress.sys, "stderr", shown := Terminal())
    with course_of("profile") as course, course.phase("tracing"):
        course.advance()
    assert "\rprofile: tracing" in shown.getvalue() and shown.getvalue().count("\n") == 1


def test_an_interrupted_line_does_not_say_done(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    with pytest.raises(KeyboardInterrupt), course_of("profile") as course, course.phase("tracing"):
        raise KeyboardInterrupt
    err = capsys.readouterr().err
    assert "tracing" in err and "done" not in err


def test_silence_draws_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.silenced(), course_of("profile") as course:
        with course.phase("costs", 3, "candidates"):
            course.advance(3)
        assert list(progress.bar([1, 2], "sample", 2, "measurement")) == [1, 2]
    assert capsys.readouterr().err == ""
