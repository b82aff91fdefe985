"""Conditions of runs: prompts, mappings of a pipeline's arguments, or other inputs of a Subject."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bitplan.planner.errors import UserError
from bitplan.planner.files import PathLike, read_text
from bitplan.planner.scenes.grammar import TRAIN, held_out_scenes, sample_scene
from bitplan.planner.texts import one_line, system_reason
from bitplan.plans.checks import LARGEST, Wrong, list_of, plain, shown
from bitplan.plans.reading import parse_json
from bitplan.plans.strict_yaml import PlainLoader

GENERAL = (
    "a photo of a red fox sitting in deep snow at dawn",
    "an oil painting of a harbour with three small boats",
    "a bowl of oranges on a wooden table next to a blue vase",
    "a portrait of an old man with a white beard, studio light",
    "a steam train crossing a stone bridge in the mountains",
    "a street at night in the rain, neon signs reflected on the ground",
    "a child flying a yellow kite on a beach",
    "a bookshelf filled with old leather books and a sleeping cat",
)


def built_in_prompts(scenes: bool, count: int, seed: int = 0) -> list[str]:
    """Returns `count` prompts to measure on. scenes: captions for the embedded pipeline instead of general prompts."""
    if not scenes:
        if count > len(GENERAL):
            raise UserError(f"there are {len(GENERAL)} built-in prompts, not {count}; ask for fewer, or give your "
                            "own, as `bitplan profile` and `bitplan evaluate` take by --prompts")  # fmt: skip
        return list(GENERAL[:count])
    rng = np.random.default_rng([seed, 3])
    return [sample_scene(rng, 1 + i % 2, TRAIN).caption for i in range(count)]


def held_out_prompts(count: int, seed: int = 0) -> list[str]:
    """Returns `count` captions of objects that training does not contain, alternating between one and two objects."""
    ones = held_out_scenes((count + 1) // 2, 1, seed)
    twos = held_out_scenes(count // 2, 2, seed)
    pairs = [scene.caption for pair in zip(ones, twos, strict=False) for scene in pair]
    return pairs + [scene.caption for scene in ones[len(twos) :]]


def read_prompts(path: Path) -> list[str]:
    """Returns the non-blank lines of a file, which end with LF, CR LF or CR. Raises UserError."""
    try:
        lines = [line.strip() for line in _ENDS.split(read_text(path, "utf-8-sig"))]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the prompts file {path}: {_reason(error)}; give a UTF-8 text file") from error
    if odd := next((number for number, line in enumerate(lines, 1) if _CONTROL.search(line)), None):
        raise UserError(f"line {odd} of the prompts file {path} holds a control character; give a UTF-8 text file")
    if not any(lines):
        raise UserError(f"the prompts file {path} contains no prompts; write one on each line")
    prompts = [line for line in lines if line]
    _check_lengths(path, prompts)
    return prompts


def conditions_in(source: PathLike | Sequence[Any] | None) -> list[Any] | None:
    """Returns the conditions of a list or of the file at a path; None for None. Raises UserError."""
    if source is None:
        return None
    if not isinstance(source, (str, Path)):
        return list(source)
    return [with_pictures(condition, Path(source)) for condition in read_conditions(Path(source))]


PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")  # texts of a condition that name such a file are opened
_ENDS = re.compile(r"\r\n|\r|\n")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")  # all but tabs and the ends of lines
_SURROGATE = re.compile(r"[\ud800-\udfff]")
LISTS = (".yaml", ".yml", ".json")
_SHOWN = 300  # characters of what a parser says
DIGEST = "sha256"  # key of a label that is a digest


def read_conditions(path: Path) -> list[Any]:
    """Returns the lines of a text file, or the entries of a YAML or JSON list of prompts or mappings.

    Raises UserError.
    """
    if path.suffix.lower() not in LISTS:
        return list(read_prompts(path))
    try:
        text = read_text(path, "utf-8-sig")
        entries = parse_json(text, distinct=True) if path.suffix.lower() == ".json" else yaml.load(text, PlainLoader)  # noqa: S506
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(
            f"cannot read the conditions file {path}: {_reason(error)}; give a YAML or JSON list"
        ) from error
    if not isinstance(entries, list) or not entries:
        raise UserError(
            f"the conditions file {path} is not a list of prompts or mappings; write `- prompt: ...` entries"
        )
    if odd := next((each for each in enumerate(entries, 1) if not isinstance(each[1], (str, dict))), None):
        raise UserError(f"the conditions file {path} is not a list of prompts or mappings: entry {odd[0]} is "
                        f"{shown(odd[1])}, of type {type(odd[1]).__name__}; put a prompt in quotes")  # fmt: skip
    _check_plain(path, entries)
    _check_lengths(path, entries)
    return entries


def _check_plain(path: Path, entries: list[Any]) -> None:
    """Raises UserError where an entry is or holds what is no plain data."""
    for number, entry in enumerate(entries, 1):
        try:
            odd = _not_plain(entry)
        except RecursionError:
            odd = "lists within lists without end"
        if odd is not None:
            raise UserError(f"entry {number} of the conditions file {path} holds {odd}; write texts, finite numbers, "
                            "lists and mappings of texts, and put other values in quotes")  # fmt: skip


def _reason(error: Exception) -> str:
    return system_reason(error) if isinstance(error, OSError) else one_line(error, _SHOWN)


def _check_lengths(path: Path, entries: list[Any]) -> None:
    """Raises UserError where an entry is too long or nested too deep."""
    try:
        list_of(plain())(entries)
    except Wrong as wrong:
        raise UserError(f"{path}, entry {wrong}; shorten it") from None


def _not_plain(value: Any) -> str | None:
    """What a value from a file holds that is no plain data, in words; None for plain data."""
    if isinstance(value, (dict, list)):
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        odd_key = isinstance(value, dict) and not all(isinstance(key, str) for key in value)
        return "a key that is not text" if odd_key else next(filter(None, map(_not_plain, parts)), None)
    if isinstance(value, str):
        odd = _CONTROL.search(value) or _SURROGATE.search(value)
        return f"the character {ascii(odd[0])}" if odd else None
    if value is None or (isinstance(value, (bool, int, float)) and -LARGEST <= value <= LARGEST):
        return None
    return f"{shown(value)}, a {type(value).__name__}"


def names_picture(value: Any) -> bool:
    """Whether a value of a condition names a picture file, which is opened."""
    try:
        return isinstance(value, str) and value.lower().endswith(PICTURES) and Path(value).is_file()
    except (OSError, ValueError):  # a long text is no name
        return False


def with_pictures(value: Any, file: Path) -> Any:
    """Returns a condition that was read from `file`, with the paths of the pictures that it names, nested ones also.

    A name is relative to the file's folder, else to the current one. Raises UserError where the picture is below
    neither.
    """
    if isinstance(value, Mapping):
        return {key: with_pictures(part, file) for key, part in value.items()}
    if isinstance(value, list):
        return [with_pictures(part, file) for part in value]
    for folder in (file.parent, Path()):
        if isinstance(value, str) and names_picture(str(folder / value)):
            if not _is_below(folder / value, (file.parent, Path())):
                raise UserError(f"{file} names the picture {value}, which is below neither the folder of that file nor "
                                "the current folder; copy it there, or run in a folder above it")  # fmt: skip
            return str(folder / value)
    return value


def check_pictures(value: Any, file: PathLike) -> None:
    """Raises UserError where a value that a profile or plan stores names a picture that is not below the current
    folder."""
    for part in value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ():
        check_pictures(part, file)
    if names_picture(value) and not _is_below(Path(value), (Path(),)):
        raise UserError(f"{file} names the picture {value}, which is not below the current folder; run in a folder "
                        "above it, or name it yourself")  # fmt: skip


def _is_below(path: Path, folders: Iterable[Path]) -> bool:
    """Whether the file that the path leads to, through links also, is below one of the folders."""
    place = path.resolve()
    return any(place.is_relative_to(folder.resolve()) for folder in folders)


def labels_of(conditions: Sequence[Any]) -> tuple[Any, ...]:
    """Returns the labels of conditions in files: text and JSON data unchanged, a digest of other objects."""
    return tuple(map(label_of, conditions))


def label_of(value: Any) -> Any:
    """Returns the label of one condition or argument."""
    return value if _is_plain(value) else {DIGEST: _digest(value)}


def is_digest(label: Any) -> bool:
    """Whether the label is a digest, from which the condition cannot be restored."""
    return isinstance(label, dict) and label.keys() == {DIGEST}


def _is_plain(value: Any) -> bool:
    try:
        return bool(json.loads(json.dumps(value)) == value)
    except (TypeError, ValueError):
        return False


def _digest(value: Any) -> str:
    """Returns the sha256 (hex) of a pickled object, of its tensors the numbers. Raises UserError if pickling fails."""
    try:
        return hashlib.sha256(pickle.dumps(_numbers(value), protocol=4)).hexdigest()
    except Exception as error:  # pickling may raise anything
        kind = type(value).__name__
        raise UserError(
            f"a condition is a {kind} that cannot be pickled ({one_line(error)}); use tensors, texts or mappings"
        ) from None


def _numbers(value: Any) -> Any:
    """Returns the value with its tensors, those in lists and mappings also, as types, shapes and bytes."""
    import torch

    if isinstance(value, torch.Tensor):
        numbers = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return str(value.dtype), tuple(value.shape), numbers
    if type(value) in (list, tuple):
        return type(value)(map(_numbers, value))
    return {key: _numbers(part) for key, part in value.items()} if type(value) is dict else value
