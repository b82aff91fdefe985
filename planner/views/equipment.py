"""Lists every member of every family and whether it is available here. Backends solve a program of one row."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bitplan.planner.measurement.engines import ENGINES
from bitplan.planner.measurement.methods import METHODS
from bitplan.planner.texts import table
from bitplan.plans.kinds import KINDS
from bitplan.solvers.programs.backends import BACKENDS
from bitplan.solvers.strategies import STRATEGIES

EXTRAS = {
    "ray": "measuring by many workers",
    "highspy": "the HiGHS solver",
    "triton": "GPU kernels",
    "peft": "LoRA adapters",
    "lpips": "the perceptual metric",
}


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
    """Returns the formats, kernels, solvers, metrics and optional packages, and why some cannot be used."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    threads = f"{torch.get_num_threads()} threads, device {device}"
    return Equipment(
        (Member("torch", str(torch.__version__), True, threads), *_torch_members(device), *_members(), *_extras())
    )


def _torch_members(device: str) -> Iterator[Member]:
    """Yields the families whose tables need torch."""
    import torch

    from bitplan.planner.targets import TARGETS
    from bitplan.plans.formats import FORMATS
    from bitplan.plans.inputs import INPUTS
    from bitplan.plans.kernels import KERNELS
    from bitplan.plans.kernels.cpu.choice import path_choice
    from bitplan.plans.transforms import TRANSFORMS
    from bitplan.sensitivity.metrics import METRICS

    for part, lines in (("format", FORMATS), ("input", INPUTS), ("transform", TRANSFORMS)):
        yield from (Member(part, name, True, line.says) for name, line in lines.items())
    yield from (Member("layer", name, True, f"nn.{kind.layer}: {kind.says}") for name, kind in KINDS.items())
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
    yield from (Member("target", name, True, target.about) for name, target in TARGETS.items())


def _members() -> Iterator[Member]:
    yield from (Member("solver", each.name, True, each.about) for each in STRATEGIES)
    for part, family in (("backend", BACKENDS), ("engine", ENGINES.values())):
        for each in family:
            reason = each.missing()
            yield Member(part, each.name, reason is None, reason or f"ready: {each.about}")
    yield from (Member("method", name, True, method.says) for name, method in METHODS.items())


def _extras() -> Iterator[Member]:
    for name, what in EXTRAS.items():
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            version = ""
        yield Member("extra", name, bool(version), f"{what}: {version or f'not installed; pip install {name}'}")
