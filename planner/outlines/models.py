"""Modules without values from configurations: one component's `config.json`, or a pipeline's folder."""

from __future__ import annotations

import importlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bitplan.planner.errors import UserError
from bitplan.planner.outlines import MAKERS
from bitplan.planner.scenes import PIPELINE_FOLDER
from bitplan.planner.texts import one_line

INDEX, CONFIG = "model_index.json", "config.json"
_LIBRARIES = ("diffusers", "transformers")
_ADVICE = "name a component's config.json or a pipeline's folder"
_UNNAMED = "model"  # the component of a lone file whose class has no line in the table


@dataclass(frozen=True, eq=False)
class Blueprint:
    """What a configuration describes. parts: component -> module on the meta device, in evaluation mode; scale: pixels
    a latent row by the pipeline's own autoencoder, None where it is not told."""

    name: str
    parts: Mapping[str, nn.Module]
    scale: int | None = None


def read(path: str, names: Sequence[str] = ()) -> Blueprint:
    """The modules that `path` describes: a component's JSON file or its folder, or a pipeline's folder or index, of
    which all components are taken that are modules, or the `names`. Of a lone file, one name is its component's.

    Weights are neither looked for nor allocated. Raises UserError.
    """
    place = PIPELINE_FOLDER if path == "scenes" else Path(path)
    if place.is_dir():
        place /= INDEX if (place / INDEX).is_file() else CONFIG
    facts = _facts(place)
    if place.name == INDEX:
        return _pipeline(place.parent, facts, names)
    if len(names) > 1:
        raise UserError(
            f"{place} describes one component, not {', '.join(names)}; give one name, or a pipeline's folder"
        )
    module = _build(place, facts, _kind(place, facts))
    row = MAKERS.get(type(module).__name__)
    inside = place.name == CONFIG and (place.parent.parent / INDEX).is_file()
    name = names[0] if names else place.parent.name if inside else row.component if row else _UNNAMED
    return Blueprint(str(place), {name: module}, _scale(place.parent.parent) if inside else None)


def _pipeline(folder: Path, index: Mapping[str, Any], names: Sequence[str]) -> Blueprint:
    """Components that are modules of the two libraries and have a configuration."""
    kinds = {
        name: tuple(entry)
        for name, entry in index.items()
        if isinstance(entry, list) and len(entry) == 2 and entry[0] in _LIBRARIES
    }
    known = {name: kind for name, kind in kinds.items() if (folder / name / CONFIG).is_file() and _is_module(*kind)}
    missing = [name for name in names if name not in known]
    if missing or not known:
        raise UserError(
            f"{folder} has no configuration of a module {', '.join(missing)}; it has those of "
            f"{', '.join(known) or 'none'}; name some of them with --components"
        )
    places = {name: folder / name / CONFIG for name in names or known}
    parts = {name: _build(place, _facts(place), known[name]) for name, place in places.items()}
    return Blueprint(str(folder), parts, _scale(folder))


def _facts(place: Path) -> dict[str, Any]:
    try:
        facts = json.loads(place.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {place}: {error.strerror}; {_ADVICE}") from None
    except ValueError as error:
        raise UserError(f"{place} is no JSON ({error}); {_ADVICE}") from None
    if not isinstance(facts, dict):
        raise UserError(f"{place} is no configuration; {_ADVICE}")
    return facts


def _kind(place: Path, facts: Mapping[str, Any]) -> tuple[str, str]:
    """Library and class, as the file says."""
    if "_class_name" in facts:
        return "diffusers", str(facts["_class_name"])
    if facts.get("architectures"):
        return "transformers", str(facts["architectures"][0])
    raise UserError(f"{place} names no class: neither `_class_name` nor `architectures`; {_ADVICE}")


def _is_module(library: str, name: str) -> bool:
    found = getattr(importlib.import_module(library), name, None)
    return isinstance(found, type) and issubclass(found, nn.Module)


def _build(place: Path, facts: Mapping[str, Any], kind: tuple[str, str]) -> nn.Module:
    """The module, every tensor of it without values."""
    library, name = kind
    if not _is_module(library, name):
        raise UserError(f"{place} is for {name}, which the installed {library} has not; update it")
    found: Any = getattr(importlib.import_module(library), name)
    try:
        with _quiet(), torch.device("meta"):
            if library == "diffusers":
                module = found.from_config({k: v for k, v in facts.items() if k != "quantization_config"})
            else:
                config = found.config_class.from_dict(dict(facts))
                module = found(config)
    except Exception as error:  # whatever a class makes of a configuration is bad input to us
        reason = one_line(error, 200)
        raise UserError(
            f"cannot build {name} from {place}: {type(error).__name__}: {reason}; check the file"
        ) from error
    built: nn.Module = module.eval()
    return built


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' notes on keys that a class of today does not know: they say nothing of shapes."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _scale(folder: Path) -> int | None:
    """Pixels a latent row: an autoencoder of diffusers' own kind halves the picture between its blocks."""
    place = folder / "vae" / CONFIG
    if not place.is_file():
        return None
    facts = _facts(place)
    blocks = facts.get("block_out_channels")
    return 2 ** (len(blocks) - 1) if facts.get("_class_name") == "AutoencoderKL" and blocks else None
