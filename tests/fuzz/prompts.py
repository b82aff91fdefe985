"""Files of prompts: what is accepted is what a plain reading of the file says."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fuzz.box import watched
from tests.fuzz.case import Case, command, raised
from tests.fuzz.plans import TRICKS
from tests.fuzz.values import RAW, TEXTS, Random, mutated, nasty, spoilt, text_of
from tests.fuzz.world import copied

LINES = ("a cat", "  a dog ", "", "# a comment", "- a list", "{}", "a: b", "é ü 猫", "'quoted'", '"', "a\tb", "null",
         "1", "a\x0bb", "a\x0cb", "a\x1cb", "a\x85b", "a\u2028b", "\u00a0", "😀", "\ufeffx", "a\x00b", "@a",
         "%x")  # fmt: skip
ENDS = ("\n", "\r\n", "\r", "\n\n")
CODES = ("utf-8", "utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1", "utf-16-le")
PICTURE = "../sibling/picture.png"  # no picture outside the folders of the file and of the user is opened
KEY, TEXT, LEVELS, GREATEST = 1000, 20_000, 32, 1.7976931348623157e308  # characters, levels, absolute value
_CONTROL = re.compile(r"(?<!\\)(?:\\\\)*(?:\\u00[01][0-9a-f]|\\[bfr])")
_EXPONENT = re.compile(
    r": [-+]?[0-9]+[eE][-+]?[0-9]+$", re.MULTILINE
)  # a text for PyYAML that writes it, else a number
NAMES = ("p.txt", "p", "p.TXT", "p.md", "p.yaml.txt", ".yaml")


def run(case: Case) -> None:
    """Makes one file, and gives it to `apply`; compares what is read with a plain reading."""
    random = case.random
    path, expected = random.choice((_lines, _lines, _json, _json, _yaml, _yaml, _bytes))(case)
    read = _read(case, path)
    if read is not None and expected is not None and read != expected:
        case.find("prompts are read as others", (read[:3], expected[:3], case.edits))
    if read is None and expected:
        case.find(f"good prompts are refused ({path.suffix})", (expected[:3], case.edits))
    for entry in read or ():
        if not _is_plain(entry):
            case.find("a prompt that is neither text nor plain data", (repr(entry)[:200], case.edits))
    if random.random() < 0.25:
        pipeline = copied(case.world.pipeline, case.box.inputs)
        command(case, "apply", case.world.pipeline_plan, pipeline, "--prompts", path, "--steps", 1,
                "--out", case.box.out / "x.png")  # fmt: skip


def _read(case: Case, path: Path) -> list[Any] | None:
    """What BitPlan reads, or None where it refuses with one line."""
    from bitplan.planner.errors import UserError
    from bitplan.planner.pipelines.conditions import conditions_in

    try:
        with watched(case.box):
            read = conditions_in(path)
    except UserError:
        return None
    except Exception as error:
        case.find(f"raised {raised(error)}", (error, case.edits))
        return None
    return None if read is None else list(read)


def _is_plain(value: Any) -> bool:
    """Whether it is text or a mapping of plain data that UTF-8 and JSON can hold."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        if "\x7f" in text or _CONTROL.search(text):  # JSON writes the others as escapes
            return False
        text.encode("utf-8")
        return bool(json.loads(text) == value) and isinstance(value, (str, dict)) and _within_limits(value)
    except (TypeError, ValueError, RecursionError):
        return False


def _within_limits(value: Any, levels: int = LEVELS) -> bool:
    """Whether it holds no longer texts, greater numbers and deeper lists than those that docs/security.md allows."""
    if isinstance(value, dict):
        return levels > 0 and all(len(key) <= KEY and _within_limits(part, levels - 1) for key, part in value.items())
    if isinstance(value, list):
        return levels > 0 and all(_within_limits(part, levels - 1) for part in value)
    return len(value) <= TEXT if isinstance(value, str) else value is None or abs(value) <= GREATEST


def _write(case: Case, name: str, text: str, code: str = "utf-8") -> Path:
    path = case.box.inputs / name
    try:
        path.write_bytes(text.encode(code, "surrogatepass"))
    except UnicodeEncodeError:
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
    case.edits.append(f"{name} {code} {text[:200]!r}")
    return path


def _lines(case: Case) -> tuple[Path, list[Any] | None]:
    """Lines end with the ends of lines of the three systems; blank ones are no prompts."""
    random = case.random
    code, end = random.choice(CODES), random.choice(ENDS)
    lines = [random.choice(LINES) for _ in range(random.randrange(1, 5))]
    if random.random() < 0.1:
        lines.append(random.choice(TEXTS))
    path = _write(case, random.choice(NAMES), end.join(lines) + random.choice(("", end)), code)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        return path, None
    split = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    plain = [line.strip() for line in split if line.strip()]
    return path, plain if all(map(_is_clean, plain)) else None


def _is_clean(line: str) -> bool:
    """Whether all would read the line alike: it is short, and no character of it ends a line or text for some."""
    return len(line) <= TEXT and not any(ord(char) < 32 and char != "\t" or char in "\x7f\ufeff" for char in line)


def _entries(random: Random) -> list[Any]:
    made: tuple[Callable[[], Any], ...] = (
        lambda: random.choice(LINES), lambda: {}, lambda: {"prompt": random.choice(LINES)},
        lambda: {"prompt": "a cat", "height": random.choice((8, 512, 1.5))},
        lambda: {"a": {"b": [1, None, "x"]}}, lambda: "😀 and \u2028",
    )  # fmt: skip
    return [random.choice(made)() for _ in range(random.randrange(1, 4))]


def _json(case: Case) -> tuple[Path, list[Any] | None]:
    random = case.random
    entries: Any = _entries(random)
    good = random.random() < 0.5
    if not good:
        entries = mutated(entries, random, random.choice((1, 2)))
    text = json.dumps(entries, ensure_ascii=random.random() < 0.5, indent=random.choice((None, 1, "\t")))
    for name, raw in RAW.items():
        text = text.replace(json.dumps(name), raw)
    path = _write(case, random.choice(("p.json", "p.JSON")), text)
    try:
        expected = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return path, None
    sound = isinstance(expected, list) and expected and all(map(_is_plain, expected)) and "@twice" not in str(entries)
    return path, expected if sound and good else None


def _refuse(text: str) -> None:
    raise ValueError(text)


def _yaml(case: Case) -> tuple[Path, list[Any] | None]:
    random = case.random
    if random.random() < 0.4:
        trick = random.choice((*TRICKS, "- &a {prompt: x}\n- *a\n", "- !!python/name:os.getcwd\n", "- {a: 1, a: 2}\n",
                               "- {1: 2}\n", "- {prompt: 2001-01-01}\n", "- {a: .nan}\n", "- {? [a] : 1}\n",
                               "- yes\n", "- {prompt: !!set {a}}\n", "- {prompt: !!binary aGk=}\n"))  # fmt: skip
        return _write(case, random.choice(("p.yaml", "p.yml")), random.choice((trick, "- x\n" + trick))), None
    import yaml

    entries = [
        {"prompt": "a cat", "x": nasty(random)} if random.random() < 0.3 else entry for entry in _entries(random)
    ]
    try:
        text = yaml.safe_dump(entries, allow_unicode=random.random() < 0.5)
    except (yaml.YAMLError, UnicodeEncodeError):
        text = text_of(entries)
    good = all(map(_is_plain, entries)) and not any(name in text for name in (*RAW, PICTURE))
    path = _write(case, "p.yaml", text)
    return path, entries if good and not _EXPONENT.search(text) and _survives(text, entries) else None


def _survives(text: str, entries: list[Any]) -> bool:
    """Whether YAML itself holds the entries: PyYAML loses some control characters."""
    import yaml

    try:
        return bool(yaml.safe_load(text) == entries) and not any(math.inf == entry for entry in entries)
    except (yaml.YAMLError, ValueError):
        return False


def _bytes(case: Case) -> tuple[Path, list[Any] | None]:
    random = case.random
    path = case.box.inputs / random.choice(("p.txt", "p.yaml", "p.json"))
    good = text_of(_entries(random)) if path.suffix == ".json" else "- a cat\n- prompt: a dog\n  height: 8\n"
    path.write_bytes(random.choice((b"", b"\n", b"\x00" * 9, random.randbytes(50), spoilt(good.encode(), random))))
    case.edits.append(f"{path.name} {path.read_bytes()[:200]!r}")
    return path, None
