"""The measuring half of the story: trace, calibrate, cost and measure into a profile, going on where it stopped."""

from __future__ import annotations

import dataclasses
import math
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from planner import graph as layer_graph
from planner.arguments import FLOAT32, check_dtype
from planner.costs import cost_candidates
from planner.engines import Site, engine_named
from planner.errors import UserError
from planner.graph import LayerGraph
from planner.graph_trace import fingerprint, trace
from planner.measuring import Plant, by_probes, exhaustively
from planner.methods import method_named
from planner.methods.base import share_of
from planner.pipelines import Generation, float_components, generate
from planner.space import Candidate, candidates, parse_schemes
from planner.station import Context, Settings, set_up
from planner.store import Profile
from plans.scheme import KEEP
from plans.swap import find_layer
from sensitivity.calibration import ActivationRange, calibrate
from sensitivity.metrics import METRICS, Encoder

FAMILY_OF = {metric.name: metric.family for metric in METRICS.values()}


@dataclass(frozen=True)
class Way:
    """How losses are found. method, engine: names in their tables; site: where the engine works; part: (k, n) measures
    the k-th of n shares of the layers and leaves the rest to others; costs are the first share's; checks: how many
    estimates by probes are measured exhaustively, too; seconds: after which no more is begun; around: the
    memory of the plans that are looked at while there is time."""

    method: str = "probes"
    engine: str = "local"
    site: Site = Site()
    part: tuple[int, int] = (1, 1)
    checks: int = 16
    seconds: float = math.inf
    around: str = "25%"


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
    parts = float_components(pipe, names)
    graph = trace(parts, lambda: generate(pipe, prompts[:1], generation))
    return Subject(pipe, parts, graph, fingerprint(parts, graph))


def check_settings(settings: Settings, out: Path, way: Way) -> None:
    """Refuse before anything slow is loaded: schemes that are none, a folder that is not there, an engine that cannot
    run. Raises UserError."""
    parse_schemes(settings.schemes)
    method_named(way.method)
    check_dtype(settings.dtype, way.method == "exhaustive" or way.checks > 0 or math.isfinite(way.seconds))
    engine_named(way.engine, way.site)
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
            "dtype": settings_dict.pop("dtype"),
        },
        "settings": settings_dict,
        "machine": {"processor": platform.machine(), "threads": torch.get_num_threads(), "device": "cpu"},
        "versions": {"torch": torch.__version__.split("+")[0]},
    }


def run_profile(subject: Subject, settings: Settings, encoder: Encoder, out: Path, way: Way) -> None:
    """Fill the profile at `out`. One transaction a measurement; raises ProfileError, GraphError, CalibrationError,
    MeasurementError, and UserError where an engine fails."""
    deadline = time.monotonic() + way.seconds
    schemes = parse_schemes(settings.schemes)
    with Profile.create(out, header_of(subject, settings)) as store:
        store.write_graph(layer_graph.to_json(subject.graph), [str(scheme) for scheme in schemes])
        ranges = _ranges(store, subject, settings)
        offered = candidates(subject.graph, subject.modules, schemes, ranges)
        if way.part[0] == 1:
            _measure_costs(store, subject, offered)
        pairs = [(c.layer, str(c.scheme)) for c in offered if c.scheme != KEEP]
        size, threads = _weight_bytes(subject.pipe), torch.get_num_threads()
        context = Context(settings, subject.graph, subject.fingerprint, ranges, size, threads)
        engine, station = engine_named(way.engine, way.site), set_up(context, subject.pipe, encoder)
        plant = Plant(
            store, lambda jobs: engine.run(context, jobs, lambda: station, way.site), share_of(pairs, way.part),
            len(settings.prompts), FAMILY_OF, engine.share(way.site, threads), deadline,
            settings.dtype == FLOAT32,
        )  # fmt: skip
        if way.method == "exhaustive":
            exhaustively(plant, plant.pairs)
        else:
            by_probes(plant, way.checks, way.around)


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


def _weight_bytes(pipe: Any) -> int:
    modules = [part for part in pipe.components.values() if isinstance(part, nn.Module)]
    return sum(weight.numel() * weight.element_size() for part in modules for weight in part.parameters())
