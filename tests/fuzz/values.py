"""Nasty values, and random edits of JSON data and of bytes that put them anywhere."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

CANARY = "canary_module"  # lies in the folder of each case; nothing may import it
BOX = "@box"  # stands in texts for the folder of the case
RAW = {  # texts that stand for what `json.dumps` cannot write -> what is written instead of them
    "@deep": "[" * 10_000 + "]" * 10_000, "@deeper": '{"a":' * 5_000 + "0" + "}" * 5_000, "@huge": "1" + "0" * 5_000,
    "@1e400": "1e400", "@twice": '{"a": 1, "a": 2}',
}  # fmt: skip
NUMBERS: tuple[Any, ...] = (
    0, -1, 1, 2, 7, 2**31, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 10**400, -0.0, 0.5, -0.5, 1e-320, 1e308, -1e308,
    float("inf"), float("-inf"), float("nan"), True, False,
)  # fmt: skip
PATHS = (
    "../sibling/victim.yaml", "../../sibling/victim.yaml", f"{BOX}/sibling/victim.yaml", "..", ".", "/", "plans",
    f"{BOX}/sibling", "../sibling", "images/../../sibling/victim.yaml", f"{BOX}/sibling/picture.png",
    "../sibling/picture.png", "plans/\x00.yaml", "a" * 300, f"{BOX}/in/fifo",
)  # fmt: skip
NAMES = ("bytes", "ms", "quality", "alignment", "own", "both", "keep", "nsr", "embed_drift", "memory", "latency",
         "w8a8", "w5q", "fp8a16", "w4a4", "__class__", "unet", "role:in", "full precision")  # fmt: skip
TEXTS = (
    "", " ", "\n", "a\nb", "\r", "\x00", "\x1b[31m", "\ud800", "\u2028", "\ufeff", "x" * 100_000, "<script>alert(1)",
    "</script>", "<!--", "{{7*7}}", "{0.__class__}", "%s%n", "'; DROP TABLE costs; --", "NaN", "-1", "1e999", "0x10",
    "1_000", "１２", "10%", "true", "null", "!!python/object/apply:os.getcwd []", f"{CANARY}:pipe", CANARY,
    f"{CANARY}:Metric", "bitplan:solve",
)  # fmt: skip
NESTED: tuple[Any, ...] = (None, [], {}, [[]], {"a": {}}, [1], {"bytes": 1}, [None], ["a", "a"], "@deep", "@deeper",
                           "@huge", "@1e400", "@twice")  # fmt: skip
Random = random.Random


def nasty(random: Random) -> Any:
    """A value that few places should take."""
    return copy.deepcopy(random.choice(random.choice((NUMBERS, NUMBERS, PATHS, NAMES, TEXTS, NESTED))))


def text_of(value: Any, indent: int | None = None) -> str:
    """The value as JSON, with what stands for other texts replaced by them."""
    text = json.dumps(value, indent=indent)
    for name, raw in RAW.items():
        text = text.replace(json.dumps(name), raw)
    return text


def mutated(data: Any, random: Random, edits: int = 1) -> Any:
    """A copy of the data with random edits."""
    root = [copy.deepcopy(data)]
    for _ in range(edits):
        holder, key = _place(root, random)
        random.choice(_EDITS)(holder, key, random)
    return root[0] if root else None


def _place(root: list[Any], random: Random) -> tuple[Any, Any]:
    """A random value, as its container and its key in it. Each level is as likely as the one below it."""
    holder: Any = root
    key: Any = 0
    while True:
        value = holder[key]
        if not isinstance(value, (dict, list)) or not value or random.random() < 0.15:
            return holder, key
        holder, key = value, random.choice(list(value) if isinstance(value, dict) else range(len(value)))


def _replace(holder: Any, key: Any, random: Random) -> None:
    holder[key] = nasty(random)


def _delete(holder: Any, key: Any, random: Random) -> None:
    del holder[key]
    if isinstance(holder, list) and not holder:
        holder.append(None)


def _rename(holder: Any, key: Any, random: Random) -> None:
    if isinstance(holder, dict):
        name = random.choice((*NAMES, *PATHS, *TEXTS))
        holder[name] = holder.pop(key)
    else:
        holder.insert(key, copy.deepcopy(holder[key]))


def _extra(holder: Any, key: Any, random: Random) -> None:
    if isinstance(holder[key], dict):
        holder[key][random.choice((*NAMES, *TEXTS))] = nasty(random)
    elif isinstance(holder[key], list):
        holder[key].append(nasty(random))
    else:
        _replace(holder, key, random)


def _swap(holder: Any, key: Any, random: Random) -> None:
    other = random.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    holder[key], holder[other] = holder[other], holder[key]


def _retype(holder: Any, key: Any, random: Random) -> None:
    value = holder[key]
    changes: tuple[Callable[[], Any], ...] = (
        lambda: [value], lambda: {"a": value}, lambda: str(value), lambda: json.dumps(value), lambda: bool(value),
        lambda: dict.fromkeys(map(str, value)) if isinstance(value, list) else list(value),
    )  # fmt: skip
    try:
        holder[key] = random.choice(changes)()
    except (TypeError, ValueError):
        holder[key] = None


def _scale(holder: Any, key: Any, random: Random) -> None:
    value = holder[key]
    if isinstance(value, (int, float)) and not isinstance(value, bool) and -1e308 <= value <= 1e308:
        holder[key] = random.choice((-value, value * 2, value + 1, value / 3, float(value), value * 10**9, str(value)))
    elif isinstance(value, list):
        holder[key] = value * random.choice((0, 2, 50))
    else:
        _replace(holder, key, random)


_EDITS = (_replace, _replace, _replace, _replace, _delete, _rename, _extra, _swap, _retype, _scale)


def spoilt(data: bytes, random: Random) -> bytes:
    """The bytes with some flipped, cut, doubled or inserted."""
    out = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8))):
        at = random.randrange(len(out) + 1)
        kind = random.randrange(5)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << random.randrange(8)
        elif kind == 1:
            out[at : at + random.choice((1, 4, 100))] = b""
        elif kind == 2:
            out[at:at] = random.choice((b"\x00", b"\xff\xfe", b"\n", b"'", b"{", b"[" * 5000, b"\xed\xa0\x80", b"nan"))
        elif kind == 3:
            out[at : at + 16] = out[at : at + 16] * 2
        elif random.random() < 0.3:
            del out[at:]
    return bytes(out)


class Below:
    """An attribute of an object that has a `root`: the path of this name in that folder."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, owner: Any, _: type) -> Path:
        return Path(owner.root / self.name)
