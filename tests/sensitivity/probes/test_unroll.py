"""A run as a chain of calls: it computes what it computed before, and its gradients are those of the whole run."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from diffusers.utils import BaseOutput
from torch import Tensor, nn

from bitplan.planner.measurement.replay import denoised_of
from bitplan.planner.pipelines.generation import Generation, outputs_of
from bitplan.planner.pipelines.sources import generate
from bitplan.sensitivity.probes.batches import batched
from bitplan.sensitivity.probes.unroll import Step, frozen, pull, rehearse, unroll
from bitplan.sensitivity.runs.calls import RecordedCall
from bitplan.sensitivity.runs.nested import first_of, gathered, plain, repeated, tensors_of
from bitplan.sensitivity.table import MeasurementError
from tests import tiny

STEPS = 4


class Toy(nn.Module):
    """A denoiser, nowhere linear."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3)).double()

    def forward(self, x: Tensor, t: Tensor, scale: float = 1.0, more: Any = None) -> Tensor:
        shift = 0 if more is None else more["shift"][0].square()
        return torch.sin(self.inner(x)) * t * scale + shift


@pytest.fixture
def toy() -> Toy:
    torch.manual_seed(0)
    return Toy()


@pytest.fixture
def start() -> Tensor:
    return torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def sample(denoiser: Callable[..., Tensor], x: Tensor, outputs: list[Tensor] | None = None) -> Tensor:
    """A linear sampler, whose second kind of input is nested and depends on an earlier step, too."""
    before = x
    for i in range(STEPS):
        t = torch.tensor([0.5 + i], dtype=x.dtype)
        out = denoiser(x, t, scale=0.5, more={"shift": (0.1 * before,)})
        if outputs is not None:
            outputs.append(out)
        x, before = x - 0.3 * out, x
    return x


def chained(steps: list[Step], module: nn.Module, end: Tensor) -> list[Tensor]:
    """The gradient of `end` on each step's output, one step at a time."""
    grads = list(torch.autograd.grad(end, [step.output for step in steps], retain_graph=True))
    for place in range(len(steps) - 1, 0, -1):
        step = steps[place]
        args, kwargs = repeated((step.args, step.kwargs), (True,) * len(tensors_of((step.args, step.kwargs))), 1)
        with torch.enable_grad():
            output = module(*args, **kwargs)
        inputs = [tensor for tensor in tensors_of((args, kwargs)) if tensor.requires_grad]
        assert len(inputs) == len(step.inputs)
        cotangents = torch.autograd.grad(output, inputs, grads[place], allow_unused=True, materialize_grads=True)
        for earlier, more in enumerate(pull(steps, place, cotangents)):
            grads[earlier] = grads[earlier] + more
    return grads


def test_gradients_of_the_chain_are_those_of_the_whole_run(toy: Toy, start: Tensor) -> None:
    weights = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    with frozen([toy]):
        steps, result = unroll([toy], lambda: sample(toy, start))
        found = chained(steps, toy, (result * weights).sum())
    outputs: list[Tensor] = []
    whole = sample(toy, start, outputs)  # with the graph through all calls at once
    assert torch.equal(whole, result)
    expected = torch.autograd.grad((whole * weights).sum(), outputs)
    assert len(found) == len(expected) == STEPS
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def in_place(denoiser: Callable[..., Tensor], x: Tensor) -> Tensor:
    """A sampler that writes into what it passed and into what it got."""
    x = x.clone()
    for i in range(STEPS):
        out = denoiser(x, torch.tensor([0.5 + i], dtype=x.dtype))
        out *= 0.3
        x -= out
    return x


def test_samplers_may_write_into_inputs_and_outputs(toy: Toy, start: Tensor) -> None:
    def kept_apart(denoiser: Callable[..., Tensor], x: Tensor) -> Tensor:
        for i in range(STEPS):
            x = x - denoiser(x, torch.tensor([0.5 + i], dtype=x.dtype)) * 0.3
        return x

    with frozen([toy]):
        ours, theirs = ([*unroll([toy], lambda s=s: s(toy, start))] for s in (in_place, kept_apart))
        assert torch.equal(ours[1], theirs[1])
        for one, other in zip(ours[0], theirs[0], strict=True):
            assert torch.equal(one.args[0], other.args[0]) and torch.equal(one.output, other.output)
        grads = [chained(steps, toy, end.sum()) for steps, end in (ours, theirs)]
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=0)


def test_steps_cut_the_graph_between_calls(toy: Toy, start: Tensor) -> None:
    """The first call depends on nothing; every other on the outputs before, by way of both of its inputs."""
    steps, result = unroll([toy], lambda: sample(toy, start))
    assert [step.rows for step in steps] == [2] * STEPS
    assert [len(step.inputs) for step in steps] == [0, 1, 2, 2]
    assert all(step.output.is_leaf and step.output.requires_grad for step in steps)
    assert result.requires_grad
    (grad,) = torch.autograd.grad(result.sum(), steps[-1].output)
    assert torch.equal(grad, torch.full_like(grad, -0.3))


def test_repeated_copies_are_leaves_in_order(start: Tensor) -> None:
    leaf = start.clone().requires_grad_()
    time = torch.tensor(0.5)
    (x, t), kept = repeated(((2 * leaf, time), {"n": [start, "text"]}), (True, False, True), 3)
    assert torch.equal(x, torch.cat([2 * start] * 3)) and x.is_leaf and x.requires_grad
    assert torch.equal(t, time)
    assert torch.equal(kept["n"][0], torch.cat([start] * 3)) and not kept["n"][0].requires_grad
    assert kept["n"][1] == "text"


def shapes_of(*tensors: Tensor) -> list[torch.Size]:
    return [tensor.shape for tensor in tensors]


def step_of(*args: Tensor, rows: int = 2) -> Step:
    return Step(nn.Identity(), args, {}, torch.zeros(rows, 3, requires_grad=True))


def test_what_holds_the_batch_is_what_grows_with_it() -> None:
    """Tokens, steps and a batch may be as many."""
    words, times, x = torch.zeros(2, 7), torch.zeros(()), torch.zeros(2, 3)
    more = shapes_of(torch.zeros(3, 3), words, times, torch.zeros(3, 7))
    assert batched(step_of(x, words, times, words), more) == (True, False, False, True)


X = torch.zeros(2, 3)
LARGER = shapes_of(torch.zeros(3, 3), torch.zeros(3, 7))
UNTOLD: dict[str, tuple[Step, list[torch.Size], str]] = {
    "a list with a tensor for each sample": (step_of(X, X[0], X[0]), shapes_of(X, *X, X[0]), "3 tensors, and 4 with"),
    "a batch along the second dimension":
        (step_of(X, torch.zeros(7, 2)), shapes_of(torch.zeros(3, 3), torch.zeros(7, 3)), "shape (7, 2) for 2"),
    "a part of a row a sample":
        (step_of(X, torch.zeros(3, 7)), shapes_of(torch.zeros(3, 3), torch.zeros(4, 7)), "shape (3, 7) for 2"),
    "several rows for some": (step_of(X, torch.zeros(4, 7)), shapes_of(torch.zeros(3, 3), torch.zeros(5, 7)), "alike"),
    "several rows a sample in all": (step_of(torch.zeros(4, 3)), shapes_of(torch.zeros(6, 3)), "order of its own"),
    "nothing that grows": (step_of(X), shapes_of(X), "does not show"),
    "padding by the batch":
        (step_of(X, torch.zeros(2, 7)), shapes_of(torch.zeros(3, 3), torch.zeros(3, 8)), "shape (2, 7) for 2"),
    "one for all that depends on samples":
        (step_of(X, torch.zeros(1, requires_grad=True)), shapes_of(torch.zeros(3, 3), torch.zeros(1)), "depends on"),
    "outputs of other batches": (
        Step(nn.Identity(), (X,), {}, [torch.zeros(2, 3).requires_grad_(), torch.zeros(4).requires_grad_()]),
        shapes_of(torch.zeros(3, 3)), "returns (2, 3), (4,) for 2 rows",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", UNTOLD)
def test_what_cannot_be_told_is_refused(case: str) -> None:
    step, larger, hint = UNTOLD[case]
    with pytest.raises(MeasurementError, match=f"{re.escape(hint)}.*--method exhaustive"):
        batched(step, larger)


class Frames(nn.Module):
    """Has a text for each of three frames of a sample, after each other, or frame after frame."""

    def __init__(self, follow: bool) -> None:
        super().__init__()
        self.follow = follow

    def forward(self, x: Tensor, texts: Tensor) -> Tensor:
        by_frame = texts.view(len(x), 3, -1).transpose(0, 1) if self.follow else texts.view(3, len(x), -1)
        return x + (torch.tensor([1.0, 2.0, 3.0])[:, None, None] * by_frame).sum(0)


@pytest.mark.parametrize("follow", [True, False])
def test_several_rows_a_sample_must_follow_each_other(follow: bool) -> None:
    frames, x, texts = Frames(follow), torch.randn(2, 3), torch.randn(6, 3)
    step = Step(frames, (x, texts), {}, frames(x, texts).requires_grad_())
    larger = shapes_of(torch.zeros(3, 3), torch.zeros(9, 3))
    if follow:
        assert batched(step, larger) == (True, True)
    else:
        with pytest.raises(MeasurementError, match="in an order of its own; measure with --method exhaustive"):
            batched(step, larger)


class Cache:
    def __init__(self) -> None:
        self.seen: dict[str, Tensor] = {}


class Keeper(nn.Module):
    """Sees the sum of all that it was called with, which the caller holds."""

    def forward(self, x: Tensor, held: Any) -> Tensor:
        if isinstance(held, Cache):
            x = held.seen["x"] = held.seen.get("x", 0) + x
        elif isinstance(held, Tensor):
            held += x.sum()
        else:
            x = held[0] = x if held[0] is None else held[0] + x
        return 2 * x


@pytest.mark.parametrize("held", [[None], Cache()])
def test_a_call_that_keeps_something_is_refused(held: Any) -> None:
    keeper = Keeper()
    with pytest.raises(MeasurementError, match="keeps something in its arguments .* measure with --method exhaustive"):
        unroll([keeper], lambda: keeper(torch.ones(2, 3), held))


def test_what_a_call_writes_into_a_tensor_is_no_cache() -> None:
    keeper = Keeper()
    assert len(unroll([keeper], lambda: keeper(torch.ones(2, 3), torch.zeros(())))[0]) == 1


def test_a_rehearsal_computes_nothing_and_sees_every_call(toy: Toy, start: Tensor) -> None:
    steps, _ = unroll([toy], lambda: sample(toy, start))
    calls: list[object] = []
    toy.inner.register_forward_hook(lambda *_: calls.append(1))
    more = torch.cat([start, start[:1]])
    found = rehearse(steps, len(start), lambda: sample(toy, more))
    assert not calls and "forward" not in vars(toy)
    assert [larger[0] for _, larger in found] == [more.shape] * len(steps)
    for step, larger in found:
        assert sum(batched(step, larger)) == sum(len(x.shape) == 2 for x in tensors_of((step.args, step.kwargs)))


def test_a_run_that_calls_otherwise_with_more_samples_is_refused(toy: Toy, start: Tensor) -> None:
    steps, _ = unroll([toy], lambda: sample(toy, start))
    with pytest.raises(MeasurementError, match=f"called 0 times, not {len(steps)}"):
        rehearse(steps, len(start), lambda: None)
    with pytest.raises(MeasurementError, match="in another order"):
        more = torch.cat([start, start[:1]])
        rehearse(steps, len(start), lambda: [sample(toy, more), sample(toy, more)])


@dataclass
class Output(BaseOutput):
    sample: Tensor
    extra: Any = None


OUTPUTS: dict[str, Callable[[Tensor], Any]] = {
    "bare": lambda x: x,
    "tuple": lambda x: (x, "more"),
    "list": lambda x: [x, x + 1],
    "dataclass": lambda x: Output(x),
    "dataclass with more": lambda x: Output(x, (x + 1,)),
    "nested tuple": lambda x: ((x, "in"), "out"),
    "mapping": lambda x: {"sample": x, "extra": 3},
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_outputs_keep_their_shape(kind: str, toy: Toy, start: Tensor) -> None:
    """The first tensor is handed out as a leaf; all else is as it was."""

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.toy = toy

        def forward(self, x: Tensor, t: Tensor) -> Any:
            return OUTPUTS[kind](self.toy(x, t))

    module, t = Wrapped(), torch.ones(1, dtype=torch.float64)
    plain = module(start, t)
    (step,), found = unroll([module], lambda: module(start, t))
    assert type(found) is type(plain)
    assert torch.autograd.grad(first_of(found).sum(), step.output)[0].eq(1).all()
    assert torch.equal(first_of(found), first_of(plain))
    assert len(tensors_of(found)) == len(tensors_of(plain))
    if isinstance(plain, BaseOutput):
        assert torch.equal(found.sample, found[0]) and list(found) == list(plain)
    if kind == "tuple":
        assert found[1] == "more"
    if kind == "nested tuple":
        assert (found[0][1], found[1]) == ("in", "out")


def test_an_output_without_a_tensor_is_refused() -> None:
    class Empty(nn.Module):
        def forward(self) -> Any:
            return {"sample": None}

    module = Empty()
    with pytest.raises(MeasurementError, match=r"returned a dict without a tensor"):
        unroll([module], module)
    assert "forward" not in vars(module)


def test_the_stub_is_gone_afterwards(toy: Toy, start: Tensor) -> None:
    def broken() -> None:
        toy(start, torch.ones(1, dtype=torch.float64))
        raise RuntimeError("on the way")

    t = torch.ones(1, dtype=torch.float64)
    plain = toy(start, t)
    with pytest.raises(RuntimeError, match="on the way"):
        unroll([toy], broken)
    again = toy(start, t)
    assert torch.equal(again, plain)
    assert not again.is_leaf  # a real call: its graph goes to the weights


def test_no_graph_is_built_within_a_call(toy: Toy, start: Tensor) -> None:
    """Not even where the sampler asks for it."""
    seen = []
    toy.inner.register_forward_hook(lambda _, args, output: seen.append(output.requires_grad))
    with torch.no_grad():
        steps, result = unroll([toy], lambda: sample(toy, start))
    assert seen == [False] * STEPS
    assert result.requires_grad


def test_frozen_parameters_ask_again_afterwards(toy: Toy) -> None:
    toy.inner[0].bias.requires_grad_(False)
    before = [p.requires_grad for p in toy.parameters()]
    assert set(before) == {True, False}
    with pytest.raises(ZeroDivisionError), frozen([toy, toy.inner]):
        assert not any(p.requires_grad for p in toy.parameters())
        raise ZeroDivisionError
    assert [p.requires_grad for p in toy.parameters()] == before


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_an_unrolled_pipeline_paints_the_same_image(guidance: float) -> None:
    pipe = tiny.build_pipeline()
    generation = Generation(3, guidance, 0)
    plain = generate(pipe, tiny.PROMPTS, generation, batch=len(tiny.PROMPTS))
    with frozen([pipe.unet, pipe.vae, pipe.text_encoder]):
        steps, images = unroll([pipe.unet], lambda: outputs_of(pipe, tiny.PROMPTS, generation))
    assert [step.rows for step in steps] == [2 * len(tiny.PROMPTS) if guidance > 1 else len(tiny.PROMPTS)] * 3
    assert torch.equal(images.detach(), plain)
    assert images.requires_grad
    grads = torch.autograd.grad(images.sum(), [step.output for step in steps])
    assert all(float(grad.abs().sum()) > 0 for grad in grads)


def test_lists_that_grow_are_one_tensor_each() -> None:
    """Those that do not stay lists, as what is held for the whole batch; the module gets lists again."""
    seen: list[Any] = []

    class Module(nn.Module):
        def forward(self, xs: Any, many: Any, both: Any) -> Any:
            seen.append((xs, many, both))
            return {"sample": [2 * x for x in xs], "seen": len(many)}

    module, both = Module(), [torch.zeros(2), torch.ones(2)]

    def run(start: Tensor) -> Any:
        return module(tuple(start), [row[: 1 + i % 2] for i, row in enumerate(start)], {"both": both})["sample"]

    first = nn.Identity()
    (earlier, step), end = unroll([first, module], lambda: run(first(torch.randn(2, 3))))
    start = earlier.output
    assert torch.equal(step.output, 2 * start) and step.output.is_leaf and type(end) is list
    _, (found, larger) = rehearse([earlier, step], 2, lambda: run(first(torch.randn(3, 3))))
    assert [len(shape) for shape in larger] == [2, 1, 1, 1] and batched(found, larger) == (True, True, False, False)
    args, kwargs = repeated((found.args, found.kwargs), (True, True, False, False), 2)
    assert torch.equal(found.again(args, kwargs)[0], torch.cat([2 * start] * 2))
    xs, many, kept = seen[-1]
    assert (type(xs), type(many), type(kept["both"])) == (tuple, list, list)
    assert [len(some) for some in many] == [1, 2, 1, 2] and len(kept["both"]) == 2
    (grad,) = torch.autograd.grad(found.inputs[1].sum(), start)
    assert grad.eq(torch.tensor([[1.0, 0, 0], [1, 1, 0]])).all()


XS = [torch.ones(3), torch.zeros(3)]
GIVEN: dict[str, tuple[tuple[Any, ...], Any, tuple[int, ...]]] = {
    "a list for a list": ((XS,), ([2 * x for x in XS],), (2, 3)),
    "in a mapping": ((tuple(XS), X), {"none": None, "sample": list(XS)}, (2, 3)),
    "a list for a tensor": ((X, XS), list(XS), (3,)),
    "a tuple, such as of a sample and more": ((XS,), tuple(XS), (3,)),
    "more than samples": ((XS,), [*XS, XS[0]], (3,)),
    "of other shapes": ((XS,), [XS[0], XS[1][:2]], (3,)),
    "a batch": ((XS,), X, (2, 3)),
}


@pytest.mark.parametrize("case", GIVEN)
def test_what_a_call_is_about_is_a_batch(case: str) -> None:
    args, output, shape = GIVEN[case]
    assert tuple(first_of(gathered((args, {}), output)).shape) == shape
    assert denoised_of([RecordedCall(args, {})], [output])[0].shape == shape
    assert str(plain(gathered((args, {}), output))) == str(output)
