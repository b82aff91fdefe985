"""The measuring half of the story: trace, calibrate, cost and measure into a profile, going on where it stopped."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from planner import graph as layer_graph
from planner.costs import cost_candidates
from planner.errors import UserError
from planner.graph import LayerGraph
from planner.graph_trace import fingerprint, trace
from planner.measure import Rig, build_rig
from planner.pipelines import Generation, components, generate
from planner.resuming import recorded, run_from
from planner.space import Candidate, candidates, parse_schemes, scales_of
from planner.store import Profile
from plans.scheme import KEEP
from plans.swap import find_layer, variant
from sensitivity.calibration import ActivationRange, calibrate
from sensitivity.exhaustive import measure_layers
from sensitivity.metrics import METRICS, Encoder

FAMILY_OF = {metric.name: metric.family for metric in METRICS.values()}


@dataclass(frozen=True)
class Settings:
    """How a profile is measured. pipeline: its name; timesteps: denoiser calls replayed for each measurement."""

    pipeline: str
    prompts: tuple[str, ...]
    schemes: tuple[str, ...]
    generation: Generation
    timesteps: int
    components: tuple[str, ...]
    clip: str | None


@dataclass(frozen=True, eq=False)
class Subject:
    """A loaded pipeline, its planned components, and their traced layer graph."""

    pipe: Any
    parts: Mapping[str, nn.Module]
    graph: LayerGraph
    fingerprint: str

    @property
    def denoiser(self) -> nn.Module:
        return next(iter(self.parts.values()))

    @property
    def modules(self) -> dict[str, nn.Module]:
        """Layer address -> its module."""
        return {layer.address: find_layer(self.parts, layer.address) for layer in self.graph.layers}


def examine(pipe: Any, prompts: Sequence[str], generation: Generation, names: Sequence[str] = ()) -> Subject:
    """Trace the pipeline on its first prompt. The counts of the graph are those of one image."""
    parts = components(pipe, names)
    graph = trace(parts, lambda: generate(pipe, prompts[:1], generation))
    return Subject(pipe, parts, graph, fingerprint(parts, graph))


def check_settings(settings: Settings, out: Path) -> None:
    """Refuse before anything slow is loaded: schemes that are none, a folder that is not there. Raises UserError."""
    parse_schemes(settings.schemes)
    if not out.absolute().parent.is_dir():
        raise UserError(f"the folder of {out} does not exist; make it, or choose another --out")


def header_of(subject: Subject, settings: Settings) -> dict[str, Any]:
    """What must be the same for a profile to be continued."""
    settings_dict = dataclasses.asdict(settings)
    return {
        "model": {
            "name": settings_dict.pop("pipeline"),
            "pipeline": type(subject.pipe).__name__,
            "components": list(subject.parts),
            "fingerprint": subject.fingerprint,
            "architecture": layer_graph.architecture_fingerprint(subject.graph),
            "itemsize": next(subject.denoiser.parameters()).element_size(),
        },
        "settings": settings_dict,
        "machine": {"processor": platform.machine(), "threads": torch.get_num_threads(), "device": "cpu"},
        "versions": {"torch": torch.__version__.split("+")[0]},
    }


def run_profile(subject: Subject, settings: Settings, encoder: Encoder, out: Path) -> None:
    """Fill the profile at `out`. One transaction a measurement; raises ProfileError, GraphError, CalibrationError."""
    schemes = parse_schemes(settings.schemes)
    with Profile.create(out, header_of(subject, settings)) as store:
        store.write_graph(layer_graph.to_json(subject.graph), [str(scheme) for scheme in schemes])
        ranges = _ranges(store, subject, settings)
        offered = candidates(subject.graph, subject.modules, schemes, ranges)
        _measure_costs(store, subject, offered)
        done = store.measured()
        rest = [c for c in offered if c.scheme != KEEP and (c.layer, str(c.scheme)) not in done]
        if rest:
            rig = build_rig(subject.pipe, subject.denoiser, settings.prompts, settings.generation, settings.timesteps)
            _measure_losses(store, subject, rest, ranges, (rig, encoder, settings.prompts))


def _ranges(store: Profile, subject: Subject, settings: Settings) -> dict[str, ActivationRange]:
    if not store.ranges():
        found = calibrate(subject.modules, lambda: generate(subject.pipe, settings.prompts, settings.generation))
        store.write_ranges({layer: dataclasses.asdict(seen) for layer, seen in found.items()})
    return {layer: ActivationRange(**seen) for layer, seen in store.ranges().items()}


def _measure_costs(store: Profile, subject: Subject, offered: Sequence[Candidate]) -> None:
    done = {(cost.layer, cost.scheme) for cost in store.costs()}
    pending = [c for c in offered if (c.layer, str(c.scheme)) not in done]
    costs = cost_candidates(pending, subject.graph.by_address, subject.modules)
    for cost in tqdm(costs, "costs", len(pending), unit="candidate", disable=not pending):
        store.write_costs([cost])


def _measure_losses(
    store: Profile,
    subject: Subject,
    rest: Sequence[Candidate],
    ranges: Mapping[str, ActivationRange],
    rig_encoder_prompts: tuple[Rig, Encoder, Sequence[str]],
) -> None:
    rig, encoder, prompts = rig_encoder_prompts

    packed: dict[Any, Any] = {}

    def context(candidate: Candidate) -> Any:
        scales = scales_of(ranges[candidate.layer], candidate.scheme)
        return lambda: variant(subject.parts, candidate.layer, candidate.scheme, scales, packed)

    variants = {(c.layer, str(c.scheme)): context(c) for c in rest}
    modules = subject.modules
    start = recorded(subject.pipe, rig, dict.fromkeys(modules[c.layer] for c in rest))
    measured = measure_layers(
        variants, lambda layer: run_from(start, modules[layer]), rig.reference, encoder=encoder, prompts=prompts
    )
    for rows in tqdm(measured, "losses", len(variants), unit="measurement"):
        store.write_measurements(rows, FAMILY_OF)
