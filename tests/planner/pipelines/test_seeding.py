"""Pipelines and functions that draw from torch's global generators: equal runs, and generators that are as before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Thread
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from bitplan.planner.errors import CallError
from bitplan.planner.measurement.replay import build_replay
from bitplan.planner.pipelines.calling import OneByOne, has_own_calls
from bitplan.planner.pipelines.generation import Generation
from bitplan.planner.pipelines.subject import Subject, run_subject, subject_of
from bitplan.planner.pipelines.traced import examine
from bitplan.sensitivity.probes.unroll import unroll
from bitplan.sensitivity.runs.generators import seeded
from bitplan.sensitivity.table import MeasurementError

torch.set_num_threads(1)
TEXTS = ["a", "bb", "ccc"]


class Noisy(nn.Module):
    """A denoiser that draws at each call, as decoders do that add noise."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + 0.1 * torch.randn_like(x)


class Unseeded(DiffusionPipeline):
    """Draws from the generator that it is given, and from torch's. `calls` holds the prompts of its calls."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.register_modules(net=net)
        self.calls: list[Any] = []

    def __call__(self, prompt: Any, generator: Any = None, output_type: str = "pil") -> Any:
        self.calls.append(prompt)
        texts = [prompt] if isinstance(prompt, str) else prompt
        generators = generator if isinstance(generator, list) else [generator]
        x = torch.cat([torch.randn(1, 3, generator=each) for each in generators])
        x = x + torch.randn(len(texts), 3) + torch.tensor([[float(len(text))] for text in texts])
        for _ in range(2):
            x = x + 0.1 * self.net(x)
        return (x.sigmoid()[:, :, None, None].expand(-1, -1, 12, 12),)


def pipeline(net: Callable[[], nn.Module]) -> Subject:
    torch.manual_seed(0)
    return subject_of(Unseeded(net()), Generation())


def plain() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 3))


def function() -> Subject:
    """Draws from torch's generator alone."""
    torch.manual_seed(0)
    net = plain()

    def run(conditions: Sequence[str], seed: int) -> Tensor:
        return net(torch.randn(len(conditions), 3) + torch.tensor([[float(len(text))] for text in conditions]))

    return Subject({"net": net}, run, TEXTS, "array")


SUBJECTS = {"a pipeline": lambda: pipeline(plain), "whose denoiser draws": lambda: pipeline(Noisy),
            "a function": function}  # fmt: skip


@pytest.mark.parametrize("name", SUBJECTS)
def test_equal_runs_are_equal_and_the_generator_is_as_before(name: str) -> None:
    subject = SUBJECTS[name]()
    torch.manual_seed(17)
    before = torch.get_rng_state()
    first = run_subject(subject, TEXTS, 5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.randn(3)
    assert torch.equal(run_subject(subject, TEXTS, 5), first)
    assert not torch.isclose(run_subject(subject, TEXTS, 6), first).any()


@pytest.mark.parametrize("name", ["a pipeline", "whose denoiser draws"])
def test_each_condition_of_a_pipeline_draws_from_its_own_seed(name: str) -> None:
    """Together as alone, whether the first run had one condition or several."""
    subject = SUBJECTS[name]()
    together = run_subject(subject, TEXTS, 5)
    assert has_own_calls(subject.run) and subject.run.pipe.calls == [TEXTS, *TEXTS]
    alone = torch.cat([run_subject(subject, [text], 5 + i) for i, text in enumerate(TEXTS)])
    assert torch.equal(together, alone)
    other = SUBJECTS[name]()
    run_subject(other, TEXTS[:1], 5)
    assert has_own_calls(other.run) and torch.equal(run_subject(other, TEXTS, 5), together)
    assert other.run.pipe.calls == [TEXTS[0], *TEXTS]


def test_a_function_that_is_called_for_one_condition_at_a_time_draws_from_the_seed_of_each() -> None:
    subject = function()
    one_by_one = OneByOne(subject.run)(TEXTS, 5)
    assert torch.equal(one_by_one, torch.cat([run_subject(subject, [text], 5 + i) for i, text in enumerate(TEXTS)]))


def test_the_generator_is_as_before_after_an_error() -> None:
    subject = Subject({"net": plain()}, lambda *_: torch.randn(3) + torch.randn(4), TEXTS)
    before = torch.get_rng_state()
    with pytest.raises(CallError, match="must match the size"):
        run_subject(subject, TEXTS, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_repeated_call_draws_what_the_recorded_one_drew() -> None:
    subject = pipeline(Noisy)
    replay = build_replay(subject, [subject.modules["net"]], TEXTS, 0, 2)
    assert len(replay.calls) == 6
    torch.randn(3)
    again = replay.run()
    for name in ("denoised", "outputs"):
        first, second = getattr(replay.reference, name), getattr(again, name)
        assert all(map(torch.equal, first, second)), name


def test_probes_refuse_a_module_that_draws() -> None:
    subject = pipeline(Noisy)
    assert [layer.address for layer in examine(subject, TEXTS).graph.layers] == ["net.layer"]
    with pytest.raises(MeasurementError, match="copies of a batch: it draws random numbers; measure with --method exh"):
        unroll([subject.modules["net"]], lambda: subject.run(TEXTS, 0))


def test_runs_of_several_threads_wait_for_each_other() -> None:
    before = torch.get_rng_state()
    drawn: dict[int, list[Tensor]] = {0: [], 1: []}

    def draw(seed: int) -> None:
        with seeded(seed):
            drawn[seed] += [torch.randn(1) for _ in range(300)]

    threads = [Thread(target=draw, args=(seed,)) for seed in drawn]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, numbers in drawn.items():
        generator = torch.Generator().manual_seed(seed)
        assert torch.equal(torch.cat(numbers), torch.cat([torch.randn(1, generator=generator) for _ in range(300)]))
    assert torch.equal(torch.get_rng_state(), before)
