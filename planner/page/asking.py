"""The requests of the page: their models, which check them, and the command that does the same. Imports no torch."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, create_model

from bitplan.planner.choice.request import Request, options_of
from bitplan.planner.texts import shell_command

Word = Annotated[str, Field(min_length=1, max_length=300)]
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"  # of a plan file: no folders, nothing hidden, nothing a shell reads
SUFFIX = ".plan.yaml"
NOT_ASKED = ("kernels", "target", "slack")  # the server states the first two; it refuses lexicographic requests
LIMIT_OF_ENTRIES = {"caps": 50, "pins": 20_000}


def _type_of(name: str, kind: Any) -> Any:
    """The type of one word of `Request` as the page may send it: texts and dictionaries of limited length."""
    if name in LIMIT_OF_ENTRIES:
        return Annotated[dict[Word, Word], Field(max_length=LIMIT_OF_ENTRIES[name])]
    return {str: Word, str | None: Word | None}.get(kind, kind)


def _words() -> dict[str, Any]:
    """Word -> (type, default), of all fields of `Request` but those of `NOT_ASKED`."""
    kinds = get_type_hints(Request)
    defaults: dict[str, Any] = {each.name: each.default for each in fields(Request)} | dict.fromkeys(
        LIMIT_OF_ENTRIES, {}
    )
    return {name: (_type_of(name, kinds[name]), default) for name, default in defaults.items() if name not in NOT_ASKED}


_WORDS: Any = create_model("_WORDS", __config__=ConfigDict(extra="forbid", frozen=True), **_words())


class PageRequest(_WORDS):  # type: ignore[misc]  # a model made of the fields of `Request`
    """The words of `bitplan.planner.choice.request.Request`, except those of `NOT_ASKED`."""

    def request(self, kernels: str, target: str | None = None) -> Request:
        """The request that `bitplan solve` makes of these words. Raises UserError."""
        return Request(**self.model_dump(), kernels=kernels, target=target)


class ToSolve(BaseModel):
    """A request for a plan.

    Attributes:
        asked: the words of the request.
        passing: whether the request comes from a slider that is still being dragged.
    """

    model_config = ConfigDict(extra="forbid")

    asked: PageRequest
    passing: bool = False


class ToSave(BaseModel):
    """A request to save the plan.

    Attributes:
        asked: the words of the request.
        name: the plan file's name, with or without its ending.
    """

    model_config = ConfigDict(extra="forbid")

    asked: PageRequest
    name: str = Field(pattern=NAME)


class ToPaint(BaseModel):
    """A request for a picture.

    Attributes:
        asked: the words of the request.
        prompt: the text to paint; empty for one of the pipeline's own prompts.
        seed: the seed of the noise.
    """

    model_config = ConfigDict(extra="forbid")

    asked: PageRequest
    prompt: str = Field(max_length=2000)
    seed: int = Field(ge=0, lt=2**31)


def command_of(profile: Path, out: Path, request: Request) -> str:
    """The command that makes the same plan."""
    return shell_command("bitplan", "solve", profile, *options_of(request), "--out", out)


def file_name(name: str) -> str:
    """The name with the ending of plan files."""
    return name if name.endswith((".yaml", ".yml")) else name + SUFFIX
