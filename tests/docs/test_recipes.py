"""The recipes of CONTRIBUTING.md are true: what they name exists, and a toy member added by each works everywhere."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest

from bitplan.planner.cli.commands import VerbCommand
from bitplan.planner.verbs import COMMANDS, VERBS, Verb
from bitplan.planner.views.equipment import equipment
from bitplan.plans.formats import FORMATS
from bitplan.plans.inputs import INPUTS
from bitplan.plans.scheme import SchemeError, parse_scheme
from bitplan.plans.terms import Table
from bitplan.plans.transforms import TRANSFORMS
from tests.docs.toy_files import FILES
from tests.docs.toys import TOYS, Toy

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
RECIPES = {
    heading: [re.sub(r"\s+", " ", step) for step in re.findall(r"^\d+\. ((?:.+\n)(?: +.+\n)*)", body, re.M)]
    for heading, body in re.findall(r"^## (.+)\n((?:(?!## ).*\n)+)", PAGE, re.M)
}
WITHOUT_TOYS = {"Add a verb", "Write a page"}  # their own tests are below


def module_of(path: str) -> Any:
    name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return import_module(name if name.startswith(("benchmarks", "tests")) else f"bitplan.{name}")


def named_in(step: str) -> Iterator[tuple[str, str]]:
    """(name, file) of each "`NAME` in `file.py`" and "`Name` (`file.py`)"."""
    yield from re.findall(r"`(\w+)` (?:in |\()`([\w/]+\.py)`", step)


def names_after(words: str, step: str) -> list[str]:
    """The names in backticks that follow `words` up to the next comma that ends the list."""
    listed = re.search(rf"{words} ((?:`\w+`(?:, and |, | and )?)+)", step)
    return re.findall(r"`(\w+)`", listed[1]) if listed else []


@pytest.mark.parametrize("heading", RECIPES)
def test_the_steps_name_what_exists(heading: str) -> None:
    body = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    assert [int(number) for number in re.findall(r"^(\d+)\. ", body, re.M)] == [*range(1, len(RECIPES[heading]) + 1)]
    for step in RECIPES[heading]:
        for path in re.findall(r"`((?:[\w.-]+/)+[\w.-]*|[A-Z]+\.md)`", step):
            assert (ROOT / path).exists(), path
        for name, path in named_in(step):
            assert hasattr(module_of(path), name), (name, path)


@pytest.mark.parametrize("heading", [heading for heading in RECIPES if heading not in WITHOUT_TOYS])
def test_the_functions_of_the_first_step_are_those_of_the_code(heading: str) -> None:
    """They are fields of the dataclass that the step names, or functions of the file that it names as an example."""
    first, example = RECIPES[heading][0], re.search(r"such as `([\w/]+\.py)`", RECIPES[heading][0])
    assert example
    classes = [getattr(module_of(path), name) for name, path in named_in(first)]
    known = {field.name for each in classes if is_dataclass(each) for field in fields(each)}
    known |= {name for name, value in vars(module_of(example[1])).items() if callable(value)}
    functions = names_after("the functions?", first)
    assert set(functions) <= known, set(functions) - known
    assert functions or heading == "Add a metric"  # whose function may have any name


def test_every_recipe_has_a_toy() -> None:
    assert {*TOYS, *WITHOUT_TOYS} == set(RECIPES)


@pytest.fixture
def toy(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Toy]:
    """The toy of a recipe, in files of its own beside the repository, for the length of one test."""
    from bitplan.planner.targets import TARGETS
    from bitplan.plans.kernels import KERNELS
    from bitplan.sensitivity.metrics import METRICS

    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
        monkeypatch.delitem(sys.modules, name.removesuffix(".py"), raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    yield TOYS[request.param](monkeypatch)
    tables: list[Any] = [FORMATS, INPUTS, TRANSFORMS, KERNELS, METRICS, TARGETS]
    assert sum("toy" in table for table in tables) <= 1
    for table in tables:
        if "toy" in table:
            table.unregister("toy")


@pytest.mark.parametrize("toy", TOYS, indirect=True)
def test_a_toy_member_is_known_and_keeps_the_contract(toy: Toy) -> None:
    if toy.doctor:
        assert toy.doctor in {(member.part, member.name) for member in equipment().members}
    if toy.option:
        verb, word, value = toy.option
        assert value in offered(verb, word)
    toy.contract()


def offered(verb: str, word: str) -> list[str]:
    """The values that an option of a command offers: its choices, else those that the shell completes."""
    command = VerbCommand(verb, VERBS[verb])
    option = next(each for each in command.params if each.name == word)
    if isinstance(option.type, click.Choice):
        return list(option.type.choices)
    return [item.value for item in option.shell_complete(click.Context(command), "")]


def test_the_example_of_another_package_spells_its_format() -> None:
    code = re.search(r"```python\n([\s\S]*?)```", (ROOT / "docs/add-a-part.md").read_text("utf-8"))
    assert code
    exec(code[1], {})
    try:
        assert [str(parse_scheme(text)) for text in ("log4a16", "log3a8")] == ["log4a16", "log3a8"]
        with pytest.raises(SchemeError, match="log weights have 4, 3 bits, not 5"):
            parse_scheme("log5a16")
    finally:
        FORMATS.unregister("log")


def test_a_member_in_front_of_another_is_tried_first() -> None:
    table: Table[Any] = Table("toy")
    for name, before in (("a", None), ("b", None), ("c", "b")):
        table.register(Verb(name, "look"), before)
    assert list(table) == ["a", "c", "b"]
    with pytest.raises(ValueError, match="a toy 'b' exists already"):
        table.register(Verb("b", "look"))


def test_a_toy_verb_is_a_function_and_a_command(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    import bitplan
    from bitplan.planner.cli import commands
    from bitplan.planner.verbs import look

    def toy(file: str, *, seed: int = 0) -> str:
        return f"{file} {seed}"

    line = Verb("toy", "look", "A toy.")
    monkeypatch.setattr(look, "toy", toy, raising=False)
    monkeypatch.setitem(VERBS, "toy", line)
    monkeypatch.setitem(COMMANDS, "toy", line)
    monkeypatch.setitem(commands.PRINTED, "toy", lambda result, words: commands.Printed({"toy": result}, result))
    assert bitplan.toy("a", seed=1) == "a 1"
    VerbCommand("toy", line)(["b", "--seed", "2"], standalone_mode=False)
    assert capsys.readouterr().out == "b 2\n"


def test_every_verb_is_in_the_pages_that_the_recipe_names() -> None:
    pages = {path: (ROOT / path).read_text("utf-8") for path in ("docs/python.md", "README.md")}
    for name in VERBS:
        assert f"autofunction:: {name}" in pages["docs/python.md"], name
    for command in COMMANDS:
        assert f"`bitplan {command}`" in pages["README.md"], command


def test_every_page_is_in_a_list_of_the_index() -> None:
    lists = re.findall(r"```\{toctree\}\n([\s\S]*?)```", (ROOT / "docs/index.md").read_text("utf-8"))
    names = {line for each in lists for line in each.splitlines() if re.fullmatch(r"[\w-]+", line)}
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"} == names
