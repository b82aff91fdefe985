"""A run as a chain of calls: it computes what it computed before, and its gradients are those of the whole run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from diffusers.utils import BaseOutput
from torch import Tensor, nn

from bitplan.planner.pipelines.generation import Generation, outputs_of
from bitplan.planner.pipelines.sources import generate
from bitplan.sensitivity.probes.batches import batched
from bitplan.sensitivity.probes.unroll import Step, frozen, pull, rehearse, unroll
from bitplan.sensitivity.runs.nested import first_of, repeated, tensors_of
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
