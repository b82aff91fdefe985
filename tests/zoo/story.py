"""The whole story, told on one animal: traced, profiled, planned, applied both ways, taken out, saved and loaded."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

import planner
from planner.store import open_profile
from planner.subject import run_subject, subject_of
from planner.tracing import examine
from tests.zoo.animal import Animal

MEMORY = "40%"
KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding)  # what a layer is a module of


@dataclass(frozen=True, eq=False)
class Story:
    """What came of it. iterating: components planned by default; ran: addresses of modules of `KINDS` that were called,
    of all that there are; layers, unused: what the trace says of them; probed, alone: planned layers whose losses came
    from probes, and by single measurements; missing: planned layers without a loss; bytes: of the planned layers, in
    full precision and with the plan; outputs: what came out at each stage."""

    iterating: tuple[str, ...]
    present: frozenset[str]
    ran: frozenset[str]
    layers: frozenset[str]
    unused: frozenset[str]
    probed: int
    alone: int
    missing: tuple[str, ...]
    bytes: tuple[float, float]
    outputs: Mapping[str, Tensor]

    def near(self, stage: str) -> float:
        """Root mean square of the difference from full precision, in units of full precision's own spread."""
        full, other = self.outputs["full"], self.outputs[stage]
        return float((other - full).square().mean().sqrt() / full.std())

    def same(self, stage: str, other: str) -> bool:
        """To the bit, and of finite numbers."""
        one, two = self.outputs[stage], self.outputs[other]
        return bool(torch.isfinite(one).all()) and torch.equal(one, two)


def tell(animal: Animal, clip: Path, folder: Path) -> Story:
    """All of it. clip: a CLIPModel's folder; folder: an empty one for the files."""
    pipe = animal.build()
    subject = subject_of(pipe, animal.generation, animal.name)
    conditions = list(animal.conditions)
    present, ran = _called(subject, conditions[:1])
    whole = examine(subject, conditions, names=_with_layers(subject.modules)).graph
    options: dict[str, Any] = {"schemes": ("w8a8", "w4a8"), "checks": 0, "probes": 2}
    if animal.refused:
        options = {"schemes": ("w8a8",), "method": "exhaustive"}
    profile = folder / "a.profile"
    planner.profile(subject, profile, prompts=conditions, clip=str(clip), timesteps=1, **options)
    with open_profile(profile) as store:
        sources = {m.layer: m.source for m in store.measurements()}
        iterating, planned = tuple(store.header()["model"]["components"]), store.layers()
    plan = planner.solve(profile, folder / "p.plan.yaml", memory=MEMORY)
    outputs = _applied(animal, pipe, folder / "p.plan.yaml", folder / "pipeline")
    weights = {address: layer for address, layer in whole.by_address.items() if address in plan.schemes}
    return Story(
        iterating, present, ran, frozenset(whole.by_address), frozenset(whole.unused),
        sum(source == "probes" for source in sources.values()), sum(source != "probes" for source in sources.values()),
        tuple(layer for layer in planned if layer not in sources),
        (4.0 * sum(layer.parameters for layer in weights.values()), plan.predictions["total"]["bytes"]), outputs,
    )  # fmt: skip


def _applied(animal: Animal, pipe: Any, plan: Path, folder: Path) -> dict[str, Tensor]:
    """What comes out in full precision, simulated, restored, with real kernels, and saved and loaded with these."""

    def run(some: Any) -> Tensor:
        return run_subject(subject_of(some, animal.generation), animal.conditions, 0)

    outputs = {"full": run(pipe)}
    outputs["fake"] = run(planner.apply(pipe, plan, kernels="fake"))
    outputs["restored"] = run(planner.restore(pipe))
    outputs["int"] = run(planner.apply(pipe, plan, kernels="int"))
    pipe.save_pretrained(folder)
    loaded = DiffusionPipeline.from_pretrained(folder)
    loaded.set_progress_bar_config(disable=True)
    outputs["loaded"] = run(loaded)
    return outputs


def _with_layers(modules: Mapping[str, nn.Module]) -> tuple[str, ...]:
    return tuple(name for name, root in modules.items() if any(isinstance(m, KINDS) for m in root.modules()))


def _called(subject: Any, conditions: list[Any]) -> tuple[frozenset[str], frozenset[str]]:
    """Addresses of the modules of `KINDS` that there are, each module once, and of those whose forward was run."""
    found: dict[nn.Module, str] = {}
    for name, root in subject.modules.items():
        for path, module in root.named_modules():
            if isinstance(module, KINDS):
                found.setdefault(module, f"{name}.{path}" if path else name)
    seen: set[str] = set()
    with ExitStack() as stack:
        for module, address in found.items():
            stack.callback(module.register_forward_hook(lambda *_, address=address: seen.add(address)).remove)
        run_subject(subject, conditions, 0)
    return frozenset(found.values()), frozenset(seen)
