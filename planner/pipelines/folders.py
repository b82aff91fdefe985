"""Checks what the files of a saved pipeline name, before diffusers opens them: classes of modules, files of weights."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from bitplan.planner.errors import UserError
from bitplan.planner.files import plain_name, read_bytes, read_text
from bitplan.plans.checks import shown
from bitplan.plans.reading import parse_json

LIBRARIES = ("diffusers", "transformers")  # a component is a class of these, or of a module of `diffusers.pipelines`
_ADVICE = "load it in a function of your own, and give its package.module:name"


def check_index(name: str, index: Mapping[str, Any]) -> None:
    """Raises UserError where the `model_index.json` of a pipeline names a class of other code, which is never run.

    name: of the pipeline.
    """
    kind = index.get("_class_name")
    if not isinstance(kind, str):
        raise UserError(f"{name} is of the class {kind!r}, which is not one of diffusers; {_ADVICE}")
    for component, entry in index.items():
        if component.startswith("_") or not isinstance(entry, (list, tuple)) or not entry:
            continue
        plain_name(component)
        library = entry[0]
        if library is not None and not _is_known(library):
            raise UserError(f"the {component} of {name} is a class of {library!r}, and only {', '.join(LIBRARIES)} are "
                            f"loaded from a pipeline's files; {_ADVICE}")  # fmt: skip


def check_folder(name: str, folder: Path, index: Mapping[str, Any]) -> None:
    """Raises UserError where older diffusers would run a file of the folder unasked, and UserError or PathError where
    weights in several files name a file that is not beside their index. index: as in `check_index`."""
    entries = {component: entry for component, entry in index.items() if isinstance(entry, (list, tuple)) and entry}
    code = [Path("None.py"), *(Path(component, f"{entry[0]}.py") for component, entry in entries.items())]
    if found := [file for file in code if (folder / file).is_file()]:
        raise UserError(f"{name} brings code in {found[0]}, which is not run; {_ADVICE}")
    for component, entry in entries.items():  # such a class looks for code of the folder, and asks whether to run it
        if str(entry[-1]).startswith("Auto") and any(_has_code(file) for file in (folder / component).glob("*.json")):
            raise UserError(f"the {component} of {name} is a class of its own code, which is not run; {_ADVICE}")
    for path in sorted(folder.glob("*/*.index*.json")):
        try:
            names = json.loads(read_bytes(path))["weight_map"].values()
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise UserError(f"{path} is not an index of weights ({type(error).__name__}); save the pipeline again"
                            ) from None  # fmt: skip
        for name in set(map(str, names)):
            plain_name(name)
    for component in entries:
        _check_packed(f"the {component} of {folder}", folder / component)


def _check_packed(what: str, folder: Path) -> None:
    """Raises UserError where a component's config hides that its weights are packed: other ones would be random."""
    try:
        config = parse_json(read_text(folder / "config.json"))
    except (OSError, ValueError):  # not of a module, or refused when it is loaded
        return
    quantization = config.get("quantization_config") if isinstance(config, dict) else None
    if quantization is not None and not (isinstance(quantization, dict) and quantization.get("quant_method")):
        raise UserError(f"{what}: its quantization_config is {shown(quantization)}, without a quant_method; save the "
                        "pipeline again")  # fmt: skip
    if quantization is None and any(map(_holds_packed, folder.glob("*.safetensors"))):
        raise UserError(f"{what} has packed weights, and its config.json has no quantization_config for them; save the "
                        "pipeline again")  # fmt: skip


def _holds_packed(file: Path) -> bool:
    try:
        with safe_open(file, "np") as weights:
            names = set(weights.keys())
    except (OSError, SafetensorError):  # refused when it is loaded
        return False
    return any(name.endswith(".codes") and f"{name.removesuffix('.codes')}.scale" in names for name in names)


def _has_code(config: Path) -> bool:
    return config.is_file() and b'"auto_map"' in read_bytes(config)


def _is_known(library: object) -> bool:
    if library in LIBRARIES:
        return True
    is_name = isinstance(library, str) and library.isidentifier()
    return is_name and importlib.util.find_spec(f"diffusers.pipelines.{library}") is not None
