"""Calibrate, cost and measure a traced subject into a profile, which continues where it stopped."""

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

from bitplan.planner.costs.allocator import lean_memory
from bitplan.planner.costs.candidates import Candidate, candidates, loadable, menu, parse_schemes
from bitplan.planner.costs.parameters import fit_parameters, profile_parameters
from bitplan.planner.costs.table import cost_candidates, timings_of
from bitplan.planner.errors import UserError
from bitplan.planner.files import PathLike
from bitplan.planner.graph import layers as layer_graph
from bitplan.planner.interrupts import keeps
from bitplan.planner.measurement.engines import Cluster, engine_named
from bitplan.planner.measurement.estimate import Estimate, estimate_of, expected_seconds
from bitplan.planner.measurement.jobs import share_of
from bitplan.planner.measurement.methods import check_dtype, method_named
from bitplan.planner.measurement.ranges import stored_ranges
from bitplan.planner.measurement.rounds import ROUND
from bitplan.planner.measurement.schedule import Schedule, measure_by_probes, measure_exhaustively
from bitplan.planner.measurement.trial import try_measuring
from bitplan.planner.measurement.worker import Settings, Worker, WorkerSetup, worker_of
from bitplan.planner.pipelines.additions import eagerly
from bitplan.planner.pipelines.calling import has_own_calls
from bitplan.planner.pipelines.metrics import MetricSet, choose_metrics, single_layer_metrics
from bitplan.planner.pipelines.offload import offloaded
from bitplan.planner.pipelines.subject import component_bytes, conditions_in
from bitplan.planner.pipelines.traced import Traced
from bitplan.planner.profiles.profile import Pair, Profile
from bitplan.planner.profiles.responses import probed
from bitplan.planner.profiles.sizes import SIZES
from bitplan.planner.profiles.speeds import ONE, PRODUCTS, TIMED
from bitplan.planner.progress import current, tell
from bitplan.plans.dtypes import FLOAT32
from bitplan.plans.kernels.cpu.choice import path_choice
from bitplan.plans.layers.opening import opened
from bitplan.plans.parameters import Key
from bitplan.plans.scheme import KEEP
from bitplan.plans.transforms.base import Fitted
from bitplan.sensitivity.calibration.ranges import ActivationRange
from bitplan.sensitivity.runs.outcome import Outcome, check_reference


@dataclass(frozen=True)
class MeasureOptions:
    """How losses are measured.

    Attributes:
        method: a name in `METHODS`.
        engine: a name in `ENGINES`.
        cluster: where the engine finds workers.
        part: (k, n) measures share k of n of the layers alone; the first share also measures costs.
        checks: the number of estimates that are also measured exhaustively.
        seconds: time after which no measurement begins.
        around: memory of the plans whose undecided layers are measured while there is time.
        folder: where converted weights lie instead of in memory.
        target: the tool whose schemes alone are measured; None for all.
    """

    method: str = "probes"
    engine: str = "local"
    cluster: Cluster = Cluster()
    part: tuple[int, int] = (1, 1)
    checks: int = 16
    seconds: float = math.inf
    around: str = "25%"
    folder: PathLike | None = None
    target: str | None = None


def check_options(schemes: Sequence[str], dtype: str, options: MeasureOptions) -> None:
    """Check the options before anything slow is loaded.

    Raises UserError for an unknown scheme or method, or an engine that cannot run.
    """
    if parse_schemes(schemes) == (KEEP,):
        raise UserError(f"--schemes {','.join(schemes)} leaves nothing to measure, since keep changes nothing; give "
                        "others, such as w8a8,w4g64ma8")  # fmt: skip
    method_named(options.method)
    check_dtype(dtype, runs_of(options))
    if engine_named(options.engine, options.cluster).distributed and options.folder is not None:
        raise UserError(f"--offload-folder is for this process, not for workers; leave --engine {options.engine} out")


def check_found(traced: Traced, dtype: str, options: MeasureOptions) -> None:
    """Check the options again for the float type that the modules have. dtype: the type that was asked for.

    Raises UserError for what is not measured in that type, and if another one was asked for.
    """
    name, found = traced.subject.name, traced.dtype
    if dtype not in (FLOAT32, found):
        raise UserError(f"the modules of {name} compute in {found}, not in {dtype}; leave --dtype {dtype} out")
    if found != dtype:
        check_dtype(found, runs_of(options), f"{name}, whose modules compute in {found}, converted to float32")


def runs_of(options: MeasureOptions) -> bool:
    """Whether losses are measured by full runs."""
    return options.method == "exhaustive" or options.checks > 0 or math.isfinite(options.seconds)


def header_of(traced: Traced, settings: Settings) -> dict[str, Any]:
    """The header of a profile, which must be the same for the profile to be continued."""
    fields = settings.to_json()
    return {
        "model": {
            "name": fields.pop("pipeline"),
            "pipeline": traced.subject.kind,
            "components": list(traced.parts),
            "fingerprint": traced.fingerprint,
            "architecture": layer_graph.architecture_fingerprint(traced.graph),
            "dtype": fields.pop("dtype"),
            **({"variant": fields.pop("variant")} if "variant" in fields else {}),
        },
        "settings": fields,
        "machine": {"processor": platform.machine(), "threads": torch.get_num_threads(), "device": "cpu"},
        "versions": {"torch": torch.__version__.split("+")[0]},
    }


def kept_in(out: PathLike) -> str:
    """What is kept where a measurement into `out` is interrupted."""
    return f"what was measured is kept in {out}, and the same command continues from there"


def run_profile(traced: Traced, settings: Settings, out: Path | None, options: MeasureOptions) -> Estimate:
    """Fill the profile at `out`, one transaction for each measurement. Returns what was expected of it, and prints it
    first; without `out`, that is all.

    Raises ProfileError, GraphError, CalibrationError, MeasurementError, and UserError if an engine fails.
    """
    current().deadline = time.monotonic() + options.seconds
    metric_set = _metric_set(traced, settings, options)
    estimate = _estimate(traced, settings, metric_set, options)
    if out is not None:
        _fill(out, traced, settings, (metric_set, estimate), options)
    return estimate


def _estimate(traced: Traced, settings: Settings, metric_set: MetricSet, options: MeasureOptions) -> Estimate:
    with opened(traced.subject.modules):
        offered = candidates(traced.graph, traced.modules, parse_schemes(settings.schemes), traced.ranges)
    pairs = share_of([(c.layer, str(c.scheme)) for c in offered if c.scheme != KEEP], options.part)
    timed = offered if options.part[0] == 1 else ()
    return estimate_of(traced, settings, metric_set, timed, (pairs, options.method, options.checks))


def _fill(
    out: Path, traced: Traced, settings: Settings, known: tuple[MetricSet, Estimate], options: MeasureOptions
) -> None:
    metric_set, estimate = known
    with eagerly(), opened(traced.subject.modules), Profile.create(out, header_of(traced, settings)) as store:
        keeps(kept_in(out))
        tell(str(estimate))
        settings = _as_begun(store, settings)
        schemes = parse_schemes(settings.schemes)
        store.write_graph(layer_graph.to_json(traced.graph), [str(s) for s in menu(traced.graph, schemes)])
        ranges = _ranges(store, traced)
        parameters = profile_parameters(store, traced.graph, traced.modules, schemes, ranges)
        setup = setup_of(traced, settings, ranges, parameters)
        offered = _offered(traced, setup, options.target)
        pairs = share_of([(c.layer, str(c.scheme)) for c in offered if c.scheme != KEEP], options.part)
        unpriced = _unpriced(store, offered) if options.part[0] == 1 else ()
        current().expect(_expected(store, pairs, timings_of(unpriced, traced.graph), options))
        worker = worker_of(setup, traced.subject, metric_set)
        if options.method == "probes" or not store.measured():
            worker = try_measuring(worker, options.method)  # before the slow work
        if unpriced:
            _measure_costs(store, traced, unpriced, len(offered))
        with lean_memory(options.folder is not None):
            schedule = _schedule(store, worker, (pairs, current().deadline), options)
            if options.method == "exhaustive":
                measure_exhaustively(schedule, schedule.pairs)
            else:
                measure_by_probes(schedule, options.checks, options.around)


def _offered(traced: Traced, setup: WorkerSetup, target: str | None) -> Sequence[Candidate]:
    """The candidates that the target can load, or all. Raises UserError if there are none but full precision."""
    schemes = parse_schemes(setup.settings.schemes)
    return loadable(candidates(traced.graph, traced.modules, schemes, setup.ranges), traced.graph, target)


def _as_begun(store: Profile, settings: Settings) -> Settings:
    """The settings with schemes and metrics in the order in which the profile was begun. Says where the number of
    threads differs, on which only timings and the rounding of losses depend."""
    header, now = store.header(), torch.get_num_threads()
    before = header["machine"].get("threads", now)
    if before != now:
        note = f"{store.path} was begun with {before} threads and goes on with {now}; timings may differ"
        print(note, file=sys.stderr)
    begun = {name: tuple(header["settings"].get(name, ())) for name in ("schemes", "metrics")}
    return dataclasses.replace(settings, **begun)


def say_coverage(traced: Traced, conditions: int) -> None:
    """Prints whether conditions are measured one at a time, and which layers no condition runs."""
    graph, reasons = traced.graph, dict(traced.graph.reasons)
    if rare := [layer.address for layer in graph.layers if layer.runs > 1]:
        print(f"conditions are measured one at a time: they differ in the calls of {len(rare)} of {len(graph.layers)} "
              f"layers, such as {rare[-1]}", file=sys.stderr)  # fmt: skip
    if idle := [name for name in graph.unused if name not in reasons]:
        print(f"{len(idle)} of {len(graph.layers) + len(idle)} layers run on none of {conditions} conditions and are "
              f"kept, such as {idle[0]}; profile on more prompts to plan them", file=sys.stderr)  # fmt: skip


def _metric_set(traced: Traced, settings: Settings, options: MeasureOptions) -> MetricSet:
    """The metrics to measure, with probes. Prints which metrics are left out or have no probe, and why.

    Raises UserError and MeasurementError for outputs that cannot be measured.
    """
    check_reference(Outcome(outputs=traced.sample, kind=traced.output))
    with offloaded(options.folder):
        metric_set = choose_metrics(
            traced.subject, traced.output, settings.prompts, settings.metrics, settings.clip, traced.sample
        )
    if metric_set.left_out:
        print(f"{' and '.join(metric_set.left_out)} left out: no condition is a text and no CLIP is named; name one "
              "with --clip to have the drift of images measured", file=sys.stderr)  # fmt: skip
    metric_set = single_layer_metrics(metric_set, traced.sample)
    for note in (*metric_set.unfit, *(metric_set.unprobed if options.method == "probes" else ())):
        print(note, file=sys.stderr)
    return metric_set


def _schedule(
    store: Profile, worker: Worker, work: tuple[tuple[Pair, ...], float], options: MeasureOptions
) -> Schedule:
    """The schedule of a profile. worker: of this process; work: the pairs to measure, and the deadline."""
    (pairs, deadline), setup = work, worker.setup
    engine, settings = engine_named(options.engine, options.cluster), setup.settings
    return Schedule(
        store, lambda jobs: engine.run(setup, jobs, lambda: worker, options.cluster), pairs, len(settings.prompts),
        {metric.name: metric.family for metric in worker.metric_set.metrics},
        engine.worker_count(options.cluster, setup.threads), deadline, settings.dtype == FLOAT32,
        1 if has_own_calls(worker.subject.run) else ROUND,
    )  # fmt: skip


def _expected(store: Profile, pairs: Sequence[Pair], timings: int, options: MeasureOptions) -> dict[str, float]:
    """Phase -> expected seconds of the work that remains. timings: of candidates without costs."""
    prompts, exact, costs = len(store.header()["settings"]["prompts"]), store.measured("exhaustive"), {"costs": timings}
    if options.method == "exhaustive":
        return expected_seconds(prompts, 0, pairs, costs | {"losses": len(set(pairs) - exact)})
    checks = max(options.checks - len(exact), 0)
    return expected_seconds(prompts, prompts - probed(store).prompts, pairs, costs | {"checks": checks})


def setup_of(
    traced: Traced, settings: Settings, ranges: Mapping[str, ActivationRange],
    parameters: Mapping[Key, Fitted] | None = None,
) -> WorkerSetup:  # fmt: skip
    """The setup of the workers that measure a traced subject. parameters: of transforms; fitted here if None."""
    schemes = parse_schemes(settings.schemes)
    if parameters is None and any(scheme.transforms for scheme in schemes):
        parameters = fit_parameters(traced.graph, traced.modules, schemes, ranges)
    return WorkerSetup(
        traced.graph, traced.fingerprint, traced.output, traced.stages, traced.denoisers, traced.sample,
        settings, ranges, sum(component_bytes(traced.subject).values()), torch.get_num_threads(),
        conditions_in(traced.subject, settings.prompts), parameters or {}, traced.apart, batch=traced.batch,
    )  # fmt: skip


def _ranges(store: Profile, traced: Traced) -> dict[str, ActivationRange]:
    """The calibrated ranges that the profile holds; those of the trace are written first if it holds none."""
    if not store.ranges():
        store.write_ranges({layer: dataclasses.asdict(each) for layer, each in traced.ranges.items()})
    return stored_ranges(store)


def _unpriced(store: Profile, offered: Sequence[Candidate]) -> list[Candidate]:
    """The candidates without costs in the profile."""
    priced = {(cost.layer, cost.scheme) for cost in store.costs()}
    return [c for c in offered if (c.layer, str(c.scheme)) not in priced]


def _measure_costs(store: Profile, traced: Traced, unpriced: Sequence[Candidate], total: int) -> None:
    """Measure and write the missing costs. total: the number of candidates, those with costs included."""
    course = current()
    products = str(path_choice())  # chosen before anything is timed
    store.write_baseline({PRODUCTS: products, TIMED: ONE, SIZES: component_bytes(traced.subject)})
    with course.phase("costs", total, "timings", total - len(unpriced)):
        for cost in cost_candidates(unpriced, traced.graph, traced.modules):
            store.write_costs([cost])
            course.advance()
