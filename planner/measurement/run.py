"""The measuring half of the story: trace, calibrate, cost and measure into a profile, going on where it stopped."""

from __future__ import annotations

import dataclasses
import math
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bitplan.planner.costs.candidates import Candidate, candidates, parse_schemes
from bitplan.planner.costs.clock import lean_memory
from bitplan.planner.costs.table import cost_candidates
from bitplan.planner.errors import UserError
from bitplan.planner.files import PathLike, check_place
from bitplan.planner.graph import layers as layer_graph
from bitplan.planner.measurement.engines import Cluster, engine_named
from bitplan.planner.measurement.jobs import share_of
from bitplan.planner.measurement.methods import check_dtype, method_named
from bitplan.planner.measurement.schedule import Schedule, by_probes, exhaustively
from bitplan.planner.measurement.worker import Settings, WorkerSetup, set_up
from bitplan.planner.pipelines.metrics import judge_of, probed_by
from bitplan.planner.pipelines.offload import offloaded
from bitplan.planner.pipelines.subject import Subject, conditions_in, run_subject
from bitplan.planner.pipelines.traced import Traced
from bitplan.planner.profiles.profile import Pair, Profile
from bitplan.planner.profiles.responses import probed
from bitplan.planner.progress import current, expected_of
from bitplan.plans.dtypes import FLOAT32
from bitplan.plans.layers.opening import opened
from bitplan.plans.scheme import KEEP
from bitplan.sensitivity.calibration.ranges import ActivationRange, calibrate


@dataclass(frozen=True)
class MeasureOptions:
    """How losses are found. method, engine: names in their tables; site: where the engine works; part: (k, n) measures
    the k-th of n shares of the layers and leaves the rest to others; costs are the first share's; checks: how many
    estimates by probes are measured exhaustively, too; seconds: after which no more is begun; around: the
    memory of the plans that are looked at while there is time; folder: where weights lie instead of in memory."""

    method: str = "probes"
    engine: str = "local"
    site: Cluster = Cluster()
    part: tuple[int, int] = (1, 1)
    checks: int = 16
    seconds: float = math.inf
    around: str = "25%"
    folder: PathLike | None = None


def check_options(schemes: Sequence[str], dtype: str, out: Path, way: MeasureOptions) -> None:
    """Refuse before anything slow is loaded: schemes that are none, a folder that is not there, an engine that cannot
    run. Raises UserError."""
    parse_schemes(schemes)
    method_named(way.method)
    check_dtype(dtype, way.method == "exhaustive" or way.checks > 0 or math.isfinite(way.seconds))
    if engine_named(way.engine, way.site).sited and way.folder is not None:
        raise UserError(f"--offload-folder is for this process, not for workers; leave --engine {way.engine} out")
    check_place(out)


def header_of(traced: Traced, settings: Settings) -> dict[str, Any]:
    """What must be the same for a profile to be continued."""
    told = settings.told()
    return {
        "model": {
            "name": told.pop("pipeline"),
            "pipeline": traced.subject.kind,
            "components": list(traced.parts),
            "fingerprint": traced.fingerprint,
            "architecture": layer_graph.architecture_fingerprint(traced.graph),
            "dtype": told.pop("dtype"),
        },
        "settings": told,
        "machine": {"processor": platform.machine(), "threads": torch.get_num_threads(), "device": "cpu"},
        "versions": {"torch": torch.__version__.split("+")[0]},
    }


def run_profile(traced: Traced, settings: Settings, out: Path, way: MeasureOptions) -> None:
    """Fill the profile at `out`. One transaction a measurement; raises ProfileError, GraphError, CalibrationError,
    MeasurementError, and UserError where an engine fails."""
    deadline = time.monotonic() + way.seconds
    current().deadline = deadline
    schemes = parse_schemes(settings.schemes)
    with offloaded(way.folder):
        judge = judge_of(traced.subject, traced.output, settings.prompts, settings.metrics, settings.clip)
    if judge.left_out:
        print(f"{' and '.join(judge.left_out)} left out: no condition is a text and no CLIP is named; name one with "
              "--clip to have the drift of images measured", file=sys.stderr)  # fmt: skip
    judge = probed_by(judge, traced.sample)
    with opened(traced.subject.modules), Profile.create(out, header_of(traced, settings)) as store:
        store.write_graph(layer_graph.to_json(traced.graph), [str(scheme) for scheme in schemes])
        context = context_of(traced, settings, _ranges(store, traced, settings))
        offered = candidates(traced.graph, traced.modules, schemes, context.ranges)
        pairs = share_of([(c.layer, str(c.scheme)) for c in offered if c.scheme != KEEP], way.part)
        pending = _unpriced(store, offered) if way.part[0] == 1 else ()
        current().expect(_expected(store, pairs, pending, way))
        if pending:
            _measure_costs(store, traced, pending, len(offered))
        if way.folder is not None:
            lean_memory()
        engine, station = engine_named(way.engine, way.site), set_up(context, traced.subject, judge)
        plant = Schedule(
            store, lambda jobs: engine.run(context, jobs, lambda: station, way.site), pairs,
            len(settings.prompts), {metric.name: metric.family for metric in judge.metrics},
            engine.share(way.site, context.threads), deadline, settings.dtype == FLOAT32,
        )  # fmt: skip
        if way.method == "exhaustive":
            exhaustively(plant, plant.pairs)
        else:
            by_probes(plant, way.checks, way.around)


def _expected(
    store: Profile, pairs: Sequence[Pair], pending: Sequence[Candidate], way: MeasureOptions
) -> dict[str, float]:
    """Seconds of what is left to do. pending: candidates without costs."""
    prompts, exact = len(store.header()["settings"]["prompts"]), store.measured("exhaustive")
    # a run of one prompt: in a batch it takes less, so that calibration tells more where there was any
    spent = current().spent
    run = min(spent.get("tracing", 0.0), spent.get("calibration", math.inf) / prompts)
    costs = {"costs": len(pending)}
    if way.method == "exhaustive":
        return expected_of(run, prompts, 0, 0, costs | {"losses": len(set(pairs) - exact)})
    schemes = len(pairs) / max(len({layer for layer, _ in pairs}), 1)
    checks = max(way.checks - len(exact), 0)
    return expected_of(run, prompts, prompts - probed(store).prompts, schemes, costs | {"checks": checks})


def context_of(traced: Traced, settings: Settings, ranges: Mapping[str, ActivationRange]) -> WorkerSetup:
    """What workers are told."""
    return WorkerSetup(
        traced.graph, traced.fingerprint, traced.output, traced.stages, traced.denoisers, traced.sample,
        settings, ranges, _weight_bytes(traced.subject), torch.get_num_threads(),
        conditions_in(traced.subject, settings.prompts),
    )  # fmt: skip


def _ranges(store: Profile, traced: Traced, settings: Settings) -> dict[str, ActivationRange]:
    if not store.ranges():
        seed = settings.generation.seed
        conditions = conditions_in(traced.subject, settings.prompts)
        with current().phase("calibration"):
            found = calibrate(traced.modules, lambda: run_subject(traced.subject, conditions, seed, batch=16))
        store.write_ranges({layer: dataclasses.asdict(seen) for layer, seen in found.items()})
    return {layer: ActivationRange(**seen) for layer, seen in store.ranges().items()}


def _unpriced(store: Profile, offered: Sequence[Candidate]) -> list[Candidate]:
    done = {(cost.layer, cost.scheme) for cost in store.costs()}
    return [c for c in offered if (c.layer, str(c.scheme)) not in done]


def _measure_costs(store: Profile, traced: Traced, pending: Sequence[Candidate], total: int) -> None:
    """total: how many candidates there are, those with costs included."""
    course = current()
    with course.phase("costs", total, "candidates", total - len(pending)):
        for cost in cost_candidates(pending, traced.graph, traced.modules):
            store.write_costs([cost])
            course.advance()


def _weight_bytes(subject: Subject) -> int:
    return sum(weight.numel() * weight.element_size() for m in subject.modules.values() for weight in m.parameters())
