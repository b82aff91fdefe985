"""What this machine can do: every member of every family, and why one is not available."""

from __future__ import annotations

import importlib.util
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
    """One member of a family. part: the family; available: whether it can be used; state: what it is, or why not."""

    part: str
    name: str
    available: bool
    state: str


@dataclass(frozen=True)
class Equipment:
    """All that there is."""

    members: tuple[Member, ...]

    def to_json(self) -> dict[str, Any]:
        """What `json.dumps` takes."""
        return {"members": [vars(member) for member in self.members]}

    def __str__(self) -> str:
        rows = [(member.part, member.name, member.state) for member in self.members]
        return table(rows, ("part", "name", "state"))


def equipment() -> Equipment:
    """Which kernels, solvers, metrics and extras are available here, or why not."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    threads = f"{torch.get_num_threads()} threads, device {device}"
    return Equipment((Member("torch", str(torch.__version__), True, threads), *_learned(device), *_plain(), *_extras()))


def _learned(device: str) -> Iterator[Member]:
    """What needs torch."""
    import torch

    from bitplan.plans.formats import FORMATS
    from bitplan.plans.kernels import KERNELS
    from bitplan.sensitivity.metrics import METRICS

    yield from (Member("format", name, True, fmt.says) for name, fmt in FORMATS.items())
    yield from (Member("layer", name, True, f"nn.{kind.layer}: {kind.says}") for name, kind in KINDS.items())
    for name, kernel in KERNELS.items():
        reasons = {where: kernel.available(torch.device(where)) for where in ("cuda", "cpu")}
        here = None in reasons.values()
        state = f"{'real' if kernel.real else 'simulated'}: {kernel.says}"
        yield Member("kernel", name, here, state + ("" if here else f" (not here: {reasons[device]})"))
    for name, metric in METRICS.items():
        lacks = metric.missing()
        yield Member("metric", f"{metric.family}: {name}", lacks is None, lacks or metric.says)


def _plain() -> Iterator[Member]:
    yield from (Member("solver", each.name, True, each.about) for each in STRATEGIES)
    for part, its in (("backend", BACKENDS), ("engine", ENGINES.values())):
        for each in its:
            lacks = each.missing()
            yield Member(part, each.name, lacks is None, lacks or f"ready: {each.about}")
    yield from (Member("method", name, True, method.says) for name, method in METHODS.items())


def _extras() -> Iterator[Member]:
    for name, what in EXTRAS.items():
        version = importlib.metadata.version(name) if importlib.util.find_spec(name) else None
        yield Member("extra", name, version is not None, f"{what}: {version or f'not installed; pip install {name}'}")
