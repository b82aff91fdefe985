"""Finds out how a diffusers pipeline is called: several conditions in one call or one, and in which form.

Signatures do not tell it, so the first run tries the ways in order, and the way that works is used from then on. Only
the first run tries: later errors are raised as they are. In every way, condition i draws its noise from seed + i. A
pipeline that draws from torch's global generators, whatever generator it is given, gets a call for each condition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from bitplan.planner.errors import is_own
from bitplan.planner.pipelines.generation import ANY, Generation, Way, argument_rows, call_parameters, outputs_of
from bitplan.planner.pipelines.quiet import quiet_libraries
from bitplan.sensitivity.runs.generators import seeded
from bitplan.sensitivity.shortage import is_shortage

T = TypeVar("T")
SAME = {torch.float32: 1e-2, torch.float64: 1e-2}  # difference of a batch from one condition, relative to its spread
SAME_HALF = 0.1  # of 16-bit types


@dataclass(eq=False)
class Caller:
    """A pipeline with what is known of how it is called; this is the `run` of its `Subject`.

    Attributes:
        pipe: the pipeline.
        generation: the arguments that are the same for all conditions.
        alone: how one condition is given; None until a run has shown it.
        together: how several are given; `alone` where each has its own call, None until a run has shown it.
        tries: the number of calls that only told how to call, which `settled` watches.
    """

    pipe: Any
    generation: Generation
    alone: Way | None = None
    together: Way | None = None
    tries: int = field(default=0)

    def __post_init__(self) -> None:
        if self.generation.preset and "num_inference_steps" not in call_parameters(self.pipe):
            self.generation = replace(self.generation, steps=None)

    def __call__(self, conditions: Sequence[Any], seed: int) -> Tensor:
        """Returns one output for each condition. Raises UserError, and what the pipeline raises."""
        with quiet_libraries():
            if len(conditions) == 1:
                return self._one(conditions[0], seed)
            if self.together is None:
                return self._first(conditions, seed)
            return self._several(conditions, seed) if self.together.together else self._each(conditions, seed)

    def learn(self, conditions: Sequence[Any], seed: int) -> None:
        """Finds out, by a run, how several conditions are given, where these are not texts and numbers alone."""
        if self.together is None and conditions and not _plain(conditions):
            with torch.no_grad():
                self((*conditions, *conditions)[:2], seed)

    def _rows(self, conditions: Sequence[Any], seed: int, way: Way) -> tuple[Tensor, bool]:
        """What the pipeline returns, and whether it drew from torch's global generators, which begin at the seed."""
        with seeded(seed) as drew:
            return outputs_of(self.pipe, conditions, replace(self.generation, seed=seed), way), drew()

    def _call(self, conditions: Sequence[Any], seed: int, way: Way) -> Tensor:
        return _by_condition(self._rows(conditions, seed, way)[0], len(conditions))

    def _several(self, conditions: Sequence[Any], seed: int) -> Tensor:
        assert self.together is not None
        return self._call(conditions, seed, self.together)

    def _each(self, conditions: Sequence[Any], seed: int) -> Tensor:
        return torch.cat([self._one(condition, seed + i) for i, condition in enumerate(conditions)])

    def _one(self, condition: Any, seed: int) -> Tensor:
        if self.alone is not None:
            return self._call([condition], seed, self.alone)
        refused: Exception | None = None
        for way in self._ways_alone():
            try:
                rows, drew = self._rows([condition], seed, way)
            except Exception as error:  # a pipeline may raise anything for an argument that it does not take
                if _is_final(error):
                    raise
                self.tries, refused = self.tries + 1, refused or error
                if way == Way(output_type=ANY):
                    refused = error  # the plainest call: what the user would see without BitPlan
            else:
                self.alone = way
                self.together = way if drew else self.together
                return _by_condition(rows, 1)
        assert refused is not None
        raise refused

    def _ways_alone(self) -> Iterator[Way]:
        """The ways of one condition, in the order in which they are tried."""
        for listed in (False, True):
            for kind in self._output_types():
                yield Way(listed=listed, output_type=kind)

    def _output_types(self) -> tuple[str, ...]:
        chosen = "output_type" in self.generation.options or "output_type" not in call_parameters(self.pipe)
        return (ANY,) if chosen else ("pt", "np", ANY)

    def _first(self, conditions: Sequence[Any], seed: int) -> Tensor:
        """The first run of several conditions: in one call if that gives what each has alone, else in one call each."""
        try:
            way = Way(together=True, output_type=self.alone.output_type if self.alone else self._output_types()[0])
            rows, drew = self._rows(conditions, seed, way)
        except Exception as error:  # whether the batch is refused or a condition wrong, the calls alone show
            if _is_final(error):
                raise
            self.tries += 1
            return self._apart(conditions, seed)
        if len(rows) == len(conditions) and _plain(conditions) and not drew:
            self.together = way
            return rows
        out = _by_condition(rows, len(conditions))
        if len(out) == len(conditions) and not drew and self._same_as_alone(conditions, seed, out):
            self.together = way
            return out
        self.tries += 1
        return self._apart(conditions, seed)

    def _apart(self, conditions: Sequence[Any], seed: int) -> Tensor:
        """Runs each condition alone; on a first refusal of one output type, tries the batch with the right one."""
        before = self._output_types()[0] if self.alone is None else self.alone.output_type
        first = self._one(conditions[0], seed)
        assert self.alone is not None
        if self.alone.output_type != before:
            return self._first(conditions, seed)
        rest = [self._one(condition, seed + i) for i, condition in enumerate(conditions[1:], 1)]
        self.together = self.alone
        return torch.cat([first, *rest])

    def _same_as_alone(self, conditions: Sequence[Any], seed: int, out: Tensor) -> bool:
        """Whether the last row is what its condition gives alone.

        Pipelines read a list of pictures as a batch, as the frames of a video, or as several inputs of one sample, and
        may give several rows of each condition in any order.
        """
        self.tries += 1
        with torch.no_grad():
            single = self._one(conditions[-1], seed + len(conditions) - 1).detach()
        last = out.detach()[-1:]
        if single.shape != last.shape:
            return False
        limit = SAME.get(_dtype_of(self.pipe), SAME_HALF)
        return bool((last - single).square().mean().sqrt() <= limit * single.std().clamp_min(1e-12))


def _by_condition(rows: Tensor, count: int) -> Tensor:
    """One output for each of `count` conditions, where a pipeline gives several rows of each, such as frames."""
    each, rest = divmod(len(rows), max(count, 1))
    return rows if rest or each < 2 else rows.unflatten(0, (count, each))


def _is_final(error: Exception) -> bool:
    """Whether another way of calling would not help: BitPlan's own refusals, and too little memory."""
    return is_own(error) or is_shortage(error)


def _plain(conditions: Sequence[Any]) -> bool:
    """Whether the conditions are texts and numbers, whose lists every pipeline reads as a batch."""
    values = (value for row in argument_rows(conditions) for value in row.values())
    return all(isinstance(value, (str, int, float, type(None))) for value in values)


def _dtype_of(pipe: Any) -> torch.dtype:
    return getattr(pipe, "dtype", torch.float32)


@dataclass(frozen=True)
class OneByOne:
    """A subject's `run` that gives each condition a call of its own.

    Attributes:
        function: the `run` itself.
    """

    function: Callable[[Sequence[Any], int], Tensor]

    def __call__(self, conditions: Sequence[Any], seed: int) -> Tensor:
        """Returns one output for each condition."""
        return torch.cat([self._one(condition, seed + i) for i, condition in enumerate(conditions)])

    def _one(self, condition: Any, seed: int) -> Tensor:
        with seeded(seed):
            return self.function([condition], seed)


def _caller_of(run: Any) -> Caller | None:
    """Returns the caller behind a subject's `run`; None for a function of the user's own."""
    while not isinstance(run, Caller) and hasattr(run, "function"):
        run = run.function
    return run if isinstance(run, Caller) else None


def is_pipeline(run: Any) -> bool:
    """Whether a subject's `run` calls a pipeline of diffusers; else it is a function of the user's own."""
    return _caller_of(run) is not None


def settled(run: Any, work: Callable[[], T]) -> T:
    """Does work that records the calls of modules, again if refused calls are among what it recorded.

    run: of the subject that the work runs.
    """
    caller = _caller_of(run)
    if caller is None:
        return work()
    before = caller.tries
    done = work()
    return done if caller.tries == before else work()


def generation_used(run: Any, generation: Generation) -> Generation:
    """Returns the arguments that the pipeline is called with, without default steps that its call, or a function of the
    user's own, does not take."""
    caller = _caller_of(run)
    if caller is None:
        return replace(generation, steps=None) if generation.preset else generation
    return caller.generation


def has_own_calls(run: Any) -> bool:
    """Whether each condition is known to have its own call."""
    caller = _caller_of(run)
    if isinstance(run, OneByOne):
        return True
    return caller is not None and caller.together is not None and not caller.together.together


def learn(run: Any, conditions: Sequence[Any], seed: int) -> None:
    """See `Caller.learn`; nothing for a function of the user's own."""
    if (caller := _caller_of(run)) is not None:
        with quiet_libraries():
            caller.learn(conditions, seed)
