"""Compares the header of a profile with that of the command that is to continue it. Imports no torch.

What matters is compared: the weights by their fingerprint, and the settings by what they mean. The name of the pipeline
and the number of threads may differ, folders may be written in other ways, and schemes, metrics and components may come
in another order.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bitplan.planner.profiles.file import ProfileError

_OPTIONS = {  # place in the header -> what sets it
    "model.fingerprint": "PIPELINE (the fingerprint of its weights)",
    "model.architecture": "PIPELINE or --components (the fingerprint of the layers)",
    "model.pipeline": "PIPELINE (its class)", "model.components": "--components", "model.dtype": "--dtype",
    "settings.prompts": "--prompts", "settings.schemes": "--schemes", "settings.metrics": "--metric",
    "settings.clip": "--clip", "settings.timesteps": "--timesteps", "settings.probes": "--probes",
    "settings.generation.steps": "--steps", "settings.generation.guidance": "--guidance",
    "settings.generation.seed": "--seed", "settings.generation.options": "--call",
    "machine.processor": "the processor", "machine.device": "the device", "versions.torch": "torch",
}  # fmt: skip
# the fingerprints tell models and layers apart
_FREE = ("model.name", "model.variant", "settings.components", "machine.threads")
SETS = ("model.components", "settings.schemes", "settings.metrics")  # lists whose order does not matter
_FOLDERS = ("settings.clip",)  # names that may be paths
_WHOLE = ("settings.generation.options",)  # mappings that are one value
_NOTHING = "keep"  # the scheme that is always there
_SHOWN = 60  # characters of a value


def check_same(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raises ProfileError with all differences between two headers that matter, each as old -> new with its option."""
    if different := list(_differences(old, new)):
        raise ProfileError(f"{path}: cannot be continued: {'; '.join(different)}; give the old values, or choose "
                           "another file with --out")  # fmt: skip


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key in dict.fromkeys((*old, *new)):
        a, b, place = old.get(key), new.get(key), f"{prefix}{key}"
        if place in SETS:
            yield from _of_sets(place, a or (), b or ())
        elif isinstance(a, dict) and isinstance(b, dict) and place not in _WHOLE:
            yield from _differences(a, b, f"{place}.")
        elif _differ(place, a, b) or (place not in _FREE and (key in old) != (key in new)):
            was, now = (_short(side[key]) if key in side else "absent" for side in (old, new))
            if isinstance(a, list) and isinstance(b, list) and place == "settings.prompts":
                was, now = _of_lists(a, b)
            yield f"{_OPTIONS.get(place, place)} {was} -> {now}"


def _differ(place: str, a: Any, b: Any) -> bool:
    same_folder = place in _FOLDERS and isinstance(a, str) and isinstance(b, str) and _is_same_folder(a, b)
    return bool(a != b) and place not in _FREE and not same_folder


def _is_same_folder(a: str, b: str) -> bool:
    try:
        return os.path.samefile(a, b)
    except (OSError, ValueError):  # one of them is a name of the hub, or does not exist any more
        return os.path.abspath(a) == os.path.abspath(b)


def _of_sets(place: str, old: Any, new: Any) -> Iterator[str]:
    """What is left out and what is added, with all values, since a list may also be absent."""
    before, now = ([each for each in dict.fromkeys(values) if each != _NOTHING] for values in (old, new))
    if set(before) != set(now):
        yield f"{_OPTIONS[place]} {','.join(before) or 'none'} -> {','.join(now) or 'none'}"


def _of_lists(old: list[Any], new: list[Any]) -> tuple[str, str]:
    """The numbers of entries, or the first that differ."""
    if len(old) != len(new):
        return f"{len(old)} entries", str(len(new))
    place = next(i for i, pair in enumerate(zip(old, new, strict=True)) if pair[0] != pair[1])
    return f"(entry {place + 1}) {_short(old[place])}", _short(new[place])


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
