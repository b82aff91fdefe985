"""Objects of the user's own, by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitplan.planner.errors import UserError
from bitplan.planner.pipelines.references import is_reference, load_reference, typed


@pytest.mark.parametrize("text", ["a:b", "a.b:c", "a.b_2:C.d"])
def test_a_reference_is_told_by_its_form(text: str) -> None:
    assert is_reference(text)


@pytest.mark.parametrize("text", ["scenes", "org/model", "./a:b", "a:", ":b", "a.:b", "C:/models/x", "a:b c"])
def test_what_is_none(text: str) -> None:
    assert not is_reference(text)


def test_loads_from_installed_modules_and_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import math

    (tmp_path / "my_own_module.py").write_text("class Box:\n    value = 3\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    assert load_reference(typed("math:pi")) == math.pi
    assert load_reference(typed("my_own_module:Box.value")) == 3


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("no_such_module_here:x", "ModuleNotFoundError"),
        ("math:no_such", "AttributeError"),
        ("math", "package.module:name"),
    ],
)
def test_what_cannot_be_had_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        load_reference(typed(text))


def test_errors_of_the_users_module_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_module.py").write_text("raise RuntimeError('of its\\nown')\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    with pytest.raises(UserError, match="cannot load broken_module:x: RuntimeError: of its own"):
        load_reference(typed("broken_module:x"))
