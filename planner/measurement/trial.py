"""Tries a measurement on one condition before anything slow, and refuses what would fail later or be wrong.

A subject must give equal outputs in equal runs: a loss is the difference of two runs.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from bitplan.planner.errors import CallError, ShortageError, UserError
from bitplan.planner.measurement.chains import chain_of
from bitplan.planner.measurement.methods.probes import try_backward
from bitplan.planner.measurement.repeats import find_keeping, keeping_error, same
from bitplan.planner.measurement.replay import build_replay
from bitplan.planner.measurement.rounds import ROUND
from bitplan.planner.measurement.worker import Worker, divided
from bitplan.planner.pipelines.calling import has_own_calls
from bitplan.planner.pipelines.failures import shown
from bitplan.planner.pipelines.subject import Subject, run_subject
from bitplan.planner.texts import cause_of, one_line
from bitplan.plans.dtypes import FLOAT32
from bitplan.plans.layers.addresses import addresses
from bitplan.sensitivity.probes.chain import draw
from bitplan.sensitivity.runs.generators import moved, states
from bitplan.sensitivity.runs.nested import tensors_of
from bitplan.sensitivity.table import MeasurementError

REPEATED = {FLOAT32: 1e-5}  # difference of two runs that compute the same, relative to the output
REPEATED_ROUGH = 1e-2  # the same in 16 bits


def try_measuring(worker: Worker, method: str) -> Worker:
    """Run the first condition as the method will. Returns the worker, or one that gives each condition its own call,
    where probes cannot copy a batch of several. Raises UserError, MeasurementError.

    Raises UserError if the output is not that of the traced run, which had the same condition and seed.
    """
    subject, seed = worker.subject, worker.setup.settings.generation.seed
    run = partial(run_subject, subject, worker.conditions[:1], seed)
    _check_eval(subject, run)
    _check_twice(worker)
    _check_repeats(worker, run)
    try:
        outputs = _probed(worker) if method == "probes" else _replayed(worker)
    except MeasurementError as error:  # copies of a batch may differ for the same reason
        _check_equal(subject, run)
        if method != "probes" or len(worker.conditions) == 1 or has_own_calls(subject.run):
            raise
        worker = divided(worker)
        outputs = _probed(worker)
        print(f"conditions are probed one at a time: {one_line(error).split(';')[0]}", file=sys.stderr)
    expected = worker.setup.sample
    if not same(outputs, expected, worker.setup.settings.dtype):
        _check_equal(subject, run)
    return worker


def _check_repeats(worker: Worker, run: Callable[[], Tensor]) -> None:
    """Raises UserError that names a denoiser whose calls depend on earlier ones, or what differs in two runs."""
    settings, addresses = worker.setup.settings, worker.setup.denoisers
    seed = settings.generation.seed
    if keeping := find_keeping(worker.subject, addresses, worker.conditions[0], seed, settings.dtype):
        _check_equal(worker.subject, run)
        raise keeping_error(keeping)


def _check_twice(worker: Worker) -> None:
    """Runs all conditions twice. Raises UserError for a condition whose outputs differ, with the cause."""
    subject, settings, conditions = worker.subject, worker.setup.settings, worker.conditions
    seed, limit = settings.generation.seed, REPEATED.get(settings.dtype, REPEATED_ROUGH)
    size = min(ROUND, worker.setup.batch)
    for at in range(0, len(conditions), size):
        run = partial(run_subject, subject, conditions[at : at + size], seed + at)
        first, second = (run().float().flatten(1) for _ in range(2))
        apart = (first - second).norm(dim=1) / second.norm(dim=1).clamp_min(1e-30)
        if bool((apart > limit).any()):
            worst = int(apart.argmax())
            _check_equal(subject, run)
            raise UserError(
                f"two equal runs of {subject.name} give outputs that differ by {float(apart[worst]):.2g} of their size "
                f"for {shown(conditions[at + worst :][:1])}; draw random numbers from the seed alone, "
                "and keep nothing from run to run"
            )


def _check_equal(subject: Subject, run: Callable[[], Tensor]) -> None:
    """Raises UserError that names the first call in which two runs differ."""
    if cause := _cause(subject.modules, run):
        raise UserError(
            f"two equal runs of {subject.name} give different outputs: {cause}; draw random numbers from the seed alone"
        )


def _check_eval(subject: Subject, run: Callable[[], Tensor]) -> None:
    """Raises UserError that names the first module that draws random numbers as in training, such as a dropout.

    Its two runs are equal, since torch's generators begin at the seed, but it is not the model that is used later.
    """
    begins: list[tuple[Tensor, ...]] = []
    found: list[str] = []
    training = {module: names[0] for module, names in addresses(subject.modules).items() if module.training}

    def ends(module: nn.Module, *_: object) -> None:
        if moved(begins.pop()):
            found.append(training[module])

    with ExitStack() as stack:
        for module in training:
            stack.callback(module.register_forward_pre_hook(lambda *_: begins.append(states())).remove)
            stack.callback(module.register_forward_hook(ends).remove)
        if training:
            run()
    if found:
        raise UserError(f"{found[0]} draws random numbers as in training; call eval() on the modules of {subject.name}")


def _replayed(worker: Worker) -> Tensor:
    """The outputs of a run of which a call of each denoiser was repeated."""
    seed = worker.setup.settings.generation.seed
    outputs = build_replay(worker.subject, worker.denoisers, worker.conditions[:1], seed, 1).reference.outputs
    assert outputs is not None
    return outputs


def _probed(worker: Worker) -> Tensor:
    """The outputs of a run from which a probe of each metric was drawn. Raises UserError where the run fails, though
    the traced run with the same condition and seed did not: its modules are called without a graph.
    """
    metric_set, generator = worker.metric_set, torch.Generator().manual_seed(0)
    with _unrolling(worker), chain_of(worker, worker.conditions[:1], 0) as chain:
        encoder = metric_set.encoder
        texts = encoder.text(metric_set.texts[:1]) if encoder and metric_set.texts else None
        probed = [metric for metric in metric_set.metrics if metric.probe]
        try_backward(worker, chain, [draw(chain, metric, 1, generator, encoder, texts) for metric in probed])
        return chain.result.detach().cpu()


@contextmanager
def _unrolling(worker: Worker) -> Iterator[None]:
    try:
        yield
    except ShortageError:
        raise
    except CallError as error:
        name, cause = worker.subject.name, cause_of(error.__cause__ or error, 160)
        raise UserError(f"probes call the modules of {name} without a graph, with which its run fails: {cause}; "
                        "measure with --method exhaustive") from error  # fmt: skip


Event = tuple[str, str, tuple[bytes, ...]]  # address of a module, what it does, and digests of these tensors
GETS, GIVES = "gets different inputs", "gives different outputs for equal inputs"


def _cause(components: Mapping[str, nn.Module], run: Callable[[], Tensor]) -> str:
    """What differs in two runs, as a part of a sentence; empty if nothing does."""
    (first, events), (second, others) = _events(components, run), _events(components, run)
    for one, other in zip(events, others, strict=False):
        if one[:2] != other[:2]:
            return f"one calls {one[0]}, the other {other[0]}"
        if one != other:
            return f"{one[0]} {one[1]}"
    return "" if first == second else "its modules give equal outputs, and its own differ"


def _events(
    components: Mapping[str, nn.Module], run: Callable[[], Tensor]
) -> tuple[tuple[bytes, ...], list[Event]]:  # fmt: skip
    """Digests of the result of a run, and all starts and ends of calls of modules, in order."""
    events: list[Event] = []

    def starts(address: str) -> Callable[..., None]:
        return lambda _, args, kwargs: events.append((address, GETS, _digests((args, kwargs))))

    def ends(address: str) -> Callable[..., None]:
        return lambda _, args, kwargs, output: events.append((address, GIVES, _digests(output)))

    with ExitStack() as stack:
        for module, (address, *_) in addresses(components).items():
            stack.callback(module.register_forward_pre_hook(starts(address), with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(ends(address), with_kwargs=True).remove)
        return _digests(run()), events


def _digests(value: object) -> tuple[bytes, ...]:
    flat = (tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for tensor in tensors_of(value))
    return tuple(hashlib.sha1(part.numpy().data, usedforsecurity=False).digest() for part in flat)
