"""What a page asks of the server, checked, and the same in the words of `bitplan solve`. Imports no torch."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from bitplan.planner.choice.request import Request, request_of

Word = Annotated[str, Field(min_length=1, max_length=300)]
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"  # of a plan file: no folders, nothing hidden, nothing a shell reads
SUFFIX = ".plan.yaml"
OPTIONS = ("memory", "latency", "objective", "confidence", "kernels")
DEFAULTS = {"objective": "both", "kernels": "int"}


class PageRequest(BaseModel):
    """The words of `bitplan.planner.verbs.choose.solve`; None, and nothing, for what is not asked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    memory: Word | None = None
    latency: Word | None = None
    caps: dict[Word, Word] = Field(default={}, max_length=50)
    pins: dict[Word, Word] = Field(default={}, max_length=20_000)
    objective: Word = "both"
    confidence: float | None = None

    def request(self, real: bool) -> Request:
        """As `bitplan solve` makes it. Raises UserError."""
        return request_of(
            self.objective, self.memory, self.latency, None, self.caps, self.pins, real, self.confidence, 0.0
        )


class ToSolve(BaseModel):
    """passing: while a slider is dragged."""

    model_config = ConfigDict(extra="forbid")

    asked: PageRequest
    passing: bool = False


class ToSave(BaseModel):
    """name: of the file, with or without its ending."""

    model_config = ConfigDict(extra="forbid")

    asked: PageRequest
    name: str = Field(pattern=NAME)


class ToPaint(BaseModel):
    """prompt: empty for one of the pipeline's own."""

    model_config = ConfigDict(extra="forbid")

    asked: PageRequest
    prompt: str = Field(max_length=2000)
    seed: int = Field(ge=0, lt=2**31)


def words_of(asked: PageRequest, kernels: str) -> dict[str, Any]:
    """The arguments of `bitplan.planner.verbs.choose.solve`."""
    return asked.model_dump() | {"kernels": kernels}


def command_of(profile: Path, out: Path, asked: PageRequest, kernels: str) -> str:
    """The command that makes the same plan."""
    words = words_of(asked, kernels)
    given = {name: words[name] for name in OPTIONS if words[name] is not None and words[name] != DEFAULTS.get(name)}
    parts = ["bitplan", "solve", str(profile)]
    for name, value in given.items():
        parts += [f"--{name}", str(value)]
    for column, most in asked.caps.items():
        parts += ["--cap", f"{column}={most}"]
    for name, scheme in asked.pins.items():
        parts += ["--keep", name] if scheme == "keep" else ["--pin", f"{name}={scheme}"]
    return shlex.join([*parts, "--out", str(out)])


def file_name(name: str) -> str:
    """With the ending of plan files."""
    return name if name.endswith((".yaml", ".yml")) else name + SUFFIX
