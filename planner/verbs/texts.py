"""Reads NAME=VALUE texts of the command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bitplan.planner.errors import UserError
from bitplan.planner.texts import one_line


def pairs(option: str) -> Callable[[Sequence[str]], dict[str, str]]:
    """The reader of an option that is given as NAME=VALUE, once a name. It raises UserError."""

    def read(texts: Sequence[str]) -> dict[str, str]:
        values: dict[str, str] = {}
        for text in texts:
            name, equals, value = text.partition("=")
            if not (name and equals and value):
                raise UserError(f"{option} {text!r} is not NAME=VALUE; write for example alignment=w8a8")
            if name in values:
                raise UserError(f"{option} {name} is given twice, as {values[name]} and {value}; give it once")
            values[name] = value
        return values

    return read


def yaml_values(option: str) -> Callable[[Sequence[str]], dict[str, Any]]:
    """The same as `pairs`, with values read as YAML: 512 is a number."""

    def read(texts: Sequence[str]) -> dict[str, Any]:
        return {name: _yaml_value(f"{option} {name}={value}", value) for name, value in pairs(option)(texts).items()}

    return read


def _yaml_value(word: str, text: str) -> Any:
    """The value of a YAML text: a number, true, false, null, a quoted text, or a list or mapping in brackets.

    Every other text stands for itself, also one with `: ` or ` #` in it. Raises UserError, which names the word of the
    command line.
    """
    import yaml

    from bitplan.plans.strict_yaml import PlainLoader

    try:
        node = yaml.compose(text, PlainLoader)
        tagged = text.lstrip().startswith(("!", "&"))
        bare = isinstance(node, yaml.ScalarNode) and not (tagged or node.style) and node.value != text.strip()
        if bare or (isinstance(node, yaml.CollectionNode) and not node.flow_style):
            return text
        return yaml.load(text, PlainLoader)  # noqa: S506
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:  # of PyYAML
        problem = one_line(getattr(error, "problem", None) or error, 200)
        raise UserError(f"{word!r} is not a YAML value ({problem}); write a number, a text or a closed list, such as "
                        "height=512") from error  # fmt: skip


def pins_to_keep(names: Sequence[str]) -> dict[str, str]:
    """Pins to full precision."""
    return dict.fromkeys(names, "keep")


def joined_pins(pins: dict[str, str], keeps: dict[str, str]) -> dict[str, str]:
    """The pins of --pin and --keep together: layer or role -> scheme. Raises UserError where they differ."""
    for name in keeps.keys() & pins.keys():
        if pins[name] != "keep":
            raise UserError(f"--keep {name} and --pin {name}={pins[name]} differ; give one of them")
    return pins | keeps
