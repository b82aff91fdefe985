"""Where a pipeline's name leads: the embedded pipeline, a local folder, or the model hub. Imports no torch.

A name that can be none of them is refused without the network, with the nearest of those that are here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from bitplan.planner.errors import UserError
from bitplan.planner.files import PIPELINE
from bitplan.planner.pipelines.references import is_reference
from bitplan.planner.scenes import PIPELINE_FOLDER, SCENES
from bitplan.planner.texts import nearest

# Arguments of a pipeline's call that BitPlan gives by itself -> what sets them.
GIVEN = {"generator": "--seed", "num_inference_steps": "--steps", "guidance_scale": "--guidance",
         "batch_size": "the number of prompts"}  # fmt: skip
_FILES = (".profile", ".yaml", ".yml", ".json")  # endings of other files that verbs read


def locate(name: str) -> str:
    """Returns the argument of `from_pretrained` for a name: the embedded pipeline's folder, a folder, or a hub id.

    Raises UserError for a name that is none of them.
    """
    if name == SCENES:
        return str(PIPELINE_FOLDER)
    if is_folder(name):
        if not (Path(name) / PIPELINE).is_file():
            raise UserError(f"{name} has no {PIPELINE}; name a folder that save_pretrained wrote")
        return name
    if not is_hub_id(name):
        raise UserError(f"there is no pipeline folder {name}; name `{SCENES}`, a local folder or a hub id, which is "
                        f"OWNER/NAME{nearest(name, known_here(name))}")  # fmt: skip
    return name


def is_hub_id(name: str) -> bool:
    """Whether the name has the form of a hub id, OWNER/NAME."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~")) and not name.endswith("/")


def is_pipeline(name: str) -> bool:
    """Whether the name is that of a pipeline, and not of another file that exists or is missing."""
    if name == SCENES or is_folder(name):
        return name == SCENES or (Path(name) / PIPELINE).is_file()
    is_file = Path(name).suffix in _FILES or os.path.lexists(name) or is_folder(str(Path(name).parent))
    return is_hub_id(name) and not is_file


def check_place(name: object) -> None:
    """Raises UserError for the name of a pipeline that leads nowhere; other values are not looked at."""
    if isinstance(name, (str, Path)) and not is_reference(str(name)):
        locate(str(name))


def known_here(name: str) -> list[str]:
    """The embedded pipeline, and the pipelines' folders beside the one that is named."""
    beside = Path(name).expanduser().parent
    try:
        folders = [str(index.parent) for index in sorted(beside.glob(f"*/{PIPELINE}"))]
    except (OSError, ValueError):  # no such folder, or one that may not be read
        folders = []
    return [SCENES, *folders]


def is_folder(name: str) -> bool:
    """Whether there is a folder of that name."""
    try:
        return Path(name).is_dir()
    except (OSError, ValueError):  # a name that no file system takes
        return False


def check_options(options: Iterable[str]) -> None:
    """Raises UserError for an argument of every call that BitPlan gives by itself. options: their names."""
    if own := [name for name in options if name in GIVEN]:
        raise UserError(f"{own[0]} is set by {GIVEN[own[0]]}; leave --call {own[0]} out")
