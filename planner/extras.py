"""The packages that only some verbs need, the extra that installs each, and the line that says which one is missing.

Imports none of them.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass

from bitplan.planner.errors import UserError


@dataclass(frozen=True)
class Extra:
    """An extra of the distribution.

    Attributes:
        name: its name, as in `bitplan[NAME]`.
        packages: what it installs, by the names of their imports, which are those of their distributions.
        about: what needs them.
    """

    name: str
    packages: tuple[str, ...]
    about: str

    def missing(self) -> str | None:
        """Which package is not installed and what to do, or None. pip reads the extra of the BitPlan that is
        installed, and asks no index for it."""
        absent = next((name for name in self.packages if not _is_installed(name)), None)
        return absent and f"{absent}, which is not installed: pip install 'bitplan[{self.name}]'"


_TABLE = (
    Extra("torch", ("torch", "diffusers", "transformers", "accelerate", "scipy"), "running models"),
    Extra("explore", ("fastapi", "uvicorn"), "the page with the solver behind it"),
    Extra("ray", ("ray",), "measuring by many workers"),
    Extra("gpu", ("triton",), "GPU kernels"),
    Extra("lora", ("peft",), "LoRA adapters"),
    Extra("lpips", ("lpips", "torchvision"), "the perceptual metric"),
)
EXTRAS = {extra.name: extra for extra in _TABLE}


def require(extra: str, what: str) -> None:
    """Raises UserError where a package of the extra, which `what` needs, is not installed. extra: empty for none."""
    if extra and (reason := EXTRAS[extra].missing()):
        raise UserError(f"{what} needs {reason}")


@contextlib.contextmanager
def telling_missing(what: str) -> Iterator[None]:
    """Turns the failed import of a package of an extra into the UserError of `require`."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        for extra in EXTRAS.values():
            if package in extra.packages:
                require(extra.name, what)
        raise


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # a module without a specification
        return True
