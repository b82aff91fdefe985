"""Lists every member of every family and whether it is available here. Backends solve a program of one row."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from bitplan.planner.extras import EXTRAS
from bitplan.planner.measurement.engines import ENGINES, Engine
from bitplan.planner.measurement.methods import METHODS
from bitplan.planner.targets import TARGETS
from bitplan.planner.texts import table
from bitplan.plans.formats import FORMATS
from bitplan.plans.inputs import INPUTS
from bitplan.plans.kinds import KINDS
from bitplan.plans.transforms import TRANSFORMS
from bitplan.sensitivity.metrics import METRICS
from bitplan.solvers.programs.backends import BACKENDS, Backend
from bitplan.solvers.strategies import STRATEGIES


@dataclass(frozen=True)
class Member:
    """One member of a family.

    Attributes:
        part: the family.
        name: the member's name.
        available: whether it can be used here.
        state: a description, or why it cannot be used.
    """

    part: str
    name: str
    available: bool
    state: str


@dataclass(frozen=True)
class Equipment:
    """The members of all families.

    Attributes:
        members: in the order of the families' tables.
    """

    members: tuple[Member, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns data for `json.dumps`."""
        return {"members": [vars(member) for member in self.members]}

    def __str__(self) -> str:
        """A table of all members."""
        rows = [(member.part, member.name, member.state) for member in self.members]
        return table(rows, ("part", "name", "state"))


def equipment() -> Equipment:
    """Returns the formats, kernels, solvers, metrics and extras, and why some cannot be used."""
    return Equipment((*_torch_members(), *_plan_members(), *_members(), *_extras()))


def _plan_members() -> Iterator[Member]:
    """Yields the families that a plan is written with."""
    for part, lines in (("format", FORMATS), ("input", INPUTS), ("transform", TRANSFORMS)):
        yield from (Member(part, name, True, line.says) for name, line in lines.items())
    yield from (Member("layer", name, True, f"nn.{kind.layer}: {kind.says}") for name, kind in KINDS.items())
    yield from (Member("target", name, True, target.about) for name, target in TARGETS.items())


def _torch_members() -> Iterator[Member]:
    """Yields torch and the families that need it, or torch alone where it cannot be used."""
    if reason := EXTRAS["torch"].missing():
        yield Member("torch", "", False, f"running a model needs {reason}")
        return
    import torch

    from bitplan.plans.kernels import KERNELS
    from bitplan.plans.kernels.cpu.choice import path_choice

    device = "cuda" if torch.cuda.is_available() else "cpu"
    yield Member("torch", str(torch.__version__), True, f"{torch.get_num_threads()} threads, device {device}")
    for name, kernel in KERNELS.items():
        reasons = {where: kernel.available(torch.device(where)) for where in ("cuda", "cpu")}
        here = None in reasons.values()
        state = f"{'real' if kernel.real else 'simulated'}: {kernel.says}"
        yield Member("kernel", name, here, state + ("" if here else f" (not here: {reasons[device]})"))
    choice = path_choice()
    yield Member("product", choice.path, True, str(choice))
    for name, metric in METRICS.items():
        reason = metric.missing()
        yield Member("metric", f"{metric.family}: {name}", reason is None, reason or metric.says)
    yield from _by_readiness("engine", ENGINES.values())


def _members() -> Iterator[Member]:
    yield from (Member("solver", each.name, True, each.about) for each in STRATEGIES)
    yield from _by_readiness("backend", BACKENDS)
    yield from (Member("method", name, True, method.says) for name, method in METHODS.items())


def _by_readiness(part: str, family: Iterable[Backend | Engine]) -> Iterator[Member]:
    for each in family:
        reason = each.missing()
        yield Member(part, each.name, reason is None, reason or f"ready: {each.about}")


def _extras() -> Iterator[Member]:
    for extra in EXTRAS.values():
        reason = extra.missing()
        state = f"needs {reason}" if reason else ", ".join(f"{name} {_version(name)}" for name in extra.packages)
        yield Member("extra", extra.name, reason is None, f"{extra.about}: {state}")


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"
