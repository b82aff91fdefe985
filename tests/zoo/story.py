"""Runs all verbs on one pipeline of the zoo: trace, profile, solve, apply both ways, restore, save and load."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

import bitplan
from bitplan.planner.graph.layers import LayerGraph
from bitplan.planner.pipelines.subject import Subject, run_subject, subject_of
from bitplan.planner.pipelines.traced import _first
from bitplan.planner.profiles.profile import open_profile
from bitplan.sensitivity.table import Measurement
from tests.zoo.animal import Animal

MEMORY = 0.4  # of full precision, of the components that are planned
KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding)  # what a layer is a module of
SCHEMES = ("w8a8", "w4a8", "w4a16")  # the last one is for embeddings, too


@dataclass(frozen=True, eq=False)
class Story:
    """The results of one pipeline.

    Attributes:
        present: addresses of the modules of `KINDS`.
        ran: addresses of those that were called.
        layers: addresses of the traced layers.
        unplanned: addresses of other modules, with the reason.
        iterating: the components that are planned by default.
        planned: the layers of these components.
        alone: planned layers that no probe reached, with their largest loss by runs of the model.
        bytes: of the planned layers in full precision and with the plan.
        outputs: stage -> output.
    """

    present: frozenset[str]
    ran: frozenset[str]
    layers: frozenset[str]
    unplanned: Mapping[str, str]
    iterating: tuple[str, ...]
    planned: frozenset[str]
    alone: Mapping[str, float]
    bytes: tuple[float, float]
    outputs: Mapping[str, Tensor]

    def near(self, stage: str) -> float:
        """Returns the root mean square of the difference from full precision, relative to its own spread."""
        full, other = self.outputs["full"], self.outputs[stage]
        return float((other - full).square().mean().sqrt() / full.std())

    def same(self, stage: str, other: str) -> bool:
        """Returns whether two outputs are equal to the bit and finite."""
        one, two = self.outputs[stage], self.outputs[other]
        return bool(torch.isfinite(one).all()) and torch.equal(one, two)


def tell(animal: Animal, clip: Path, folder: Path) -> Story:
    """Runs all stages. clip: a CLIPModel's folder; folder: an empty one for the files."""
    pipe = animal.build()
    subject = subject_of(pipe, animal.generation, animal.name)
    present, ran = _called(subject, animal.conditions[:1])
    whole = _first(subject, animal.conditions, 0, ()).graph
    profile = bitplan.profile(
        subject, folder / "p.profile", schemes=SCHEMES, checks=0, probes=2, prompts=animal.conditions, clip=str(clip),
        timesteps=1,
    )  # fmt: skip
    with open_profile(profile) as store:
        alone = _alone(store.measurements())
        iterating, planned = tuple(store.header()["model"]["components"]), frozenset(store.layers())
    found = bitplan.solve(profile, folder / "p.plan.yaml", memory=f"{MEMORY:.0%}")
    sizes = _bytes(whole, planned), found.predictions["total"]["bytes"]
    outputs = _applied(animal, pipe, folder / "p.plan.yaml", folder / "pipeline")
    return Story(
        present, ran, frozenset(whole.by_address), dict.fromkeys(whole.unused, "") | dict(whole.reasons), iterating,
        planned, alone, sizes, outputs,
    )  # fmt: skip


def _alone(measurements: Iterable[Measurement]) -> dict[str, float]:
    found: dict[str, float] = {}
    for one in measurements:
        if one.source == "exhaustive":
            found[one.layer] = max(found.get(one.layer, 0.0), abs(one.mean))
    return found


def _bytes(graph: LayerGraph, planned: frozenset[str]) -> float:
    return 4.0 * sum(layer.parameters for address, layer in graph.by_address.items() if address in planned)


def _applied(animal: Animal, pipe: Any, plan: Path, folder: Path) -> dict[str, Tensor]:
    """Returns the outputs in full precision, simulated, restored, with real kernels, and saved and loaded."""

    def run(some: Any) -> Tensor:
        return run_subject(subject_of(some, animal.generation), animal.conditions, 0)

    outputs = {"full": run(pipe)}
    outputs["fake"] = run(bitplan.apply(pipe, plan, kernels="fake"))
    outputs["restored"] = run(bitplan.restore(pipe))
    outputs["int"] = run(bitplan.apply(pipe, plan, kernels="int"))
    pipe.save_pretrained(folder)
    loaded = DiffusionPipeline.from_pretrained(folder)
    loaded.set_progress_bar_config(disable=True)
    outputs["loaded"] = run(loaded)
    return outputs


def _called(subject: Subject, conditions: tuple[Any, ...]) -> tuple[frozenset[str], frozenset[str]]:
    """Returns addresses of the modules of `KINDS`, each module once, and of those whose forward ran."""
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
