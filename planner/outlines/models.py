"""Builds modules on the meta device from a component's `config.json` or from a pipeline's folder."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bitplan.planner.errors import UserError
from bitplan.planner.files import plain_name, read_text
from bitplan.planner.graph.naming import components_in
from bitplan.planner.outlines import MAKERS
from bitplan.planner.pipelines.places import is_pipeline
from bitplan.planner.pipelines.quiet import quiet
from bitplan.planner.scenes import PIPELINE_FOLDER, SCENES
from bitplan.planner.texts import one_line, system_reason

INDEX, CONFIG = "model_index.json", "config.json"
_LIBRARIES = ("diffusers", "transformers")
_ADVICE = "name a component's config.json or a pipeline's folder"
_MOST_BLOCKS = 16  # of an autoencoder
_UNNAMED = "model"  # component name for a single file whose class is not in MAKERS


@dataclass(frozen=True, eq=False)
class MetaModel:
    """The modules that a configuration describes, without values.

    Attributes:
        name: the path of the configuration or of the pipeline's folder.
        parts: component -> module on the meta device, in evaluation mode.
        scale: pixels a latent row of the pipeline's autoencoder; None where it is unknown.
    """

    name: str
    parts: Mapping[str, nn.Module]
    scale: int | None = None


def read(path: str, names: Sequence[str] = ()) -> MetaModel:
    """Builds the modules that `path` describes, without reading or allocating weights.

    path: a component's JSON file or folder, a pipeline's folder or index, `scenes`, or a hub id; names: the components
    of a pipeline [all that are modules], or one name for a single component. Raises UserError.
    """
    if path == SCENES or (not Path(path).exists() and is_pipeline(path)):
        return replace(read(str(PIPELINE_FOLDER if path == SCENES else _of_hub(path)), names), name=path)
    place = Path(path)
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
    return MetaModel(str(place), {name: module}, _scale(place.parent.parent) if inside else None)


def _of_hub(name: str) -> Path:
    """Returns the folder of the configurations that the hub holds of a pipeline, without weights. Raises UserError."""
    from huggingface_hub import snapshot_download

    try:
        with quiet():
            return Path(snapshot_download(name, allow_patterns=["*.json"]))
    except Exception as error:  # of the hub or of the network
        raise UserError(f"cannot read the configurations of {name} on the hub: {one_line(error, 200)}; {_ADVICE}"
                        ) from error  # fmt: skip


def _pipeline(folder: Path, index: Mapping[str, Any], names: Sequence[str]) -> MetaModel:
    """Builds the components that are diffusers or transformers modules and have a configuration."""
    kinds = {
        name: tuple(entry)
        for name, entry in index.items()
        if isinstance(entry, list) and len(entry) == 2 and entry[0] in _LIBRARIES and isinstance(entry[1], str)
    }
    for name in kinds:
        plain_name(name)
    available = {name: kind for name, kind in kinds.items() if (folder / name / CONFIG).is_file() and _is_module(*kind)}
    names = components_in(names, available)
    missing = [name for name in names if name not in available]
    if missing or not available:
        raise UserError(
            f"{folder} has no configuration of a module {', '.join(missing)}; it has those of "
            f"{', '.join(available) or 'none'}; `bitplan inspect` takes some of them by --components"
        )
    places = {name: folder / name / CONFIG for name in names or available}
    parts = {name: _build(place, _facts(place), available[name]) for name, place in places.items()}
    return MetaModel(str(folder), parts, _scale(folder))


def _facts(place: Path) -> dict[str, Any]:
    try:
        facts = json.loads(read_text(place))
    except OSError as error:
        raise UserError(f"cannot read {place}: {system_reason(error)}; {_ADVICE}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place} is not JSON ({one_line(error)}); {_ADVICE}") from None
    if not isinstance(facts, dict):
        raise UserError(f"{place} is not a configuration; {_ADVICE}")
    return facts


def _kind(place: Path, facts: Mapping[str, Any]) -> tuple[str, str]:
    """Returns the library and the class that the file names."""
    if "_class_name" in facts:
        return "diffusers", str(facts["_class_name"])
    if isinstance(facts.get("architectures"), list) and facts["architectures"]:
        return "transformers", str(facts["architectures"][0])
    raise UserError(f"{place} names no class: neither `_class_name` nor `architectures`; {_ADVICE}")


def _is_module(library: str, name: str) -> bool:
    member = getattr(importlib.import_module(library), name, None)
    return isinstance(member, type) and issubclass(member, nn.Module)


def _build(place: Path, facts: Mapping[str, Any], kind: tuple[str, str]) -> nn.Module:
    """Returns the module with all tensors on the meta device."""
    library, name = kind
    if not _is_module(library, name):
        raise UserError(f"{place} needs {name}, which the installed {library} does not have; update it")
    builder: Any = getattr(importlib.import_module(library), name)
    try:
        with quiet(), torch.device("meta"):
            if library == "diffusers":
                module = builder.from_config({k: v for k, v in facts.items() if k != "quantization_config"})
            else:
                config = builder.config_class.from_dict(dict(facts))
                module = builder(config)
    except Exception as error:  # a class may raise anything for a wrong configuration
        reason = one_line(error, 200)
        raise UserError(
            f"cannot build {name} from {place}: {type(error).__name__}: {reason}; check the file"
        ) from error
    built: nn.Module = module.eval()
    return built


def _scale(folder: Path) -> int | None:
    """Returns pixels a latent row: `AutoencoderKL` halves the picture between its blocks."""
    place = folder / "vae" / CONFIG
    if not place.is_file():
        return None
    facts = _facts(place)
    blocks = facts.get("block_out_channels")
    if (
        facts.get("_class_name") != "AutoencoderKL"
        or not isinstance(blocks, list)
        or not 0 < len(blocks) <= _MOST_BLOCKS
    ):
        return None
    return int(2 ** (len(blocks) - 1))
