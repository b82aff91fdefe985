"""Resuming at any layer of any model gives what the whole run gives, to the bit; and what cannot be skipped is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bitplan.sensitivity.runs.prefix import Prefix, record, resumed
from tests.sensitivity.runs.prefix_models import MODELS, Often, Twice, toy, transformer, unet

torch.set_num_threads(1)


def run_of(model: nn.Module, inputs: dict[str, Any]) -> Callable[[], Tensor]:
    @torch.no_grad()
    def run() -> Tensor:
        torch.manual_seed(1)
        out = model(**inputs)
        return out if isinstance(out, Tensor) else out[0]

    return run


def layers_of(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, (nn.Linear, nn.Conv2d))]


@contextmanager
def changed(layer: nn.Module) -> Iterator[None]:
    weight = layer.weight
    layer.weight = nn.Parameter(weight.detach() * 1.5, requires_grad=False)
    try:
        yield
    finally:
        layer.weight = weight


@contextmanager
def counted(model: nn.Module) -> Iterator[list[nn.Module]]:
    """The modules that compute, by the hooks that only real calls of `forward` pass."""
    seen: list[nn.Module] = []
    before = {module: module.forward for module in model.modules()}
    for module, forward in before.items():
        module.forward = lambda *a, module=module, forward=forward, **k: (seen.append(module), forward(*a, **k))[1]
    try:
        yield seen
    finally:
        for module in before:
            del module.forward


@pytest.mark.parametrize("limit", [1 << 30, 1 << 12, 0])
@pytest.mark.parametrize("build", MODELS)
def test_every_layer_gives_what_the_whole_run_gives(build, limit):
    model, inputs = build()
    run = run_of(model, inputs)
    full, prefix = run(), record([model], run, limit)
    differing = 0
    for layer in layers_of(model):
        with changed(layer):
            expected = run()
            for _ in range(2):  # resuming leaves nothing behind
                with resumed(prefix, layer):
                    assert torch.equal(run(), expected)
        differing += not torch.equal(full, expected)
    assert differing >= 3
    assert torch.equal(run(), full) and not any("forward" in vars(module) for module in model.modules())


def leaf_calls(model: nn.Module, run: Callable[[], Tensor], prefix: Prefix, layer: nn.Module) -> list[int]:
    """How many layers compute in a whole run and in one that resumes at `layer`."""
    found = []
    with counted(model) as seen:
        run()
        found.append(sum(module in layers_of(model) for module in seen))
        seen.clear()
        with resumed(prefix, layer):
            run()
        found.append(sum(module in layers_of(model) for module in seen))
    return found


@pytest.mark.parametrize("build", [unet, transformer, toy(Often)])
def test_only_what_follows_is_computed(build):
    model, inputs = build()
    run = run_of(model, inputs)
    prefix = record([model], run)
    order = sorted({layer for layer in layers_of(model) if layer in prefix.first}, key=prefix.first.__getitem__)
    counts = [leaf_calls(model, run, prefix, layer) for layer in order]
    assert counts[0][0] == counts[0][1] and counts[-1][1] == 1
    rest = [after for _, after in counts]
    assert rest == sorted(rest, reverse=True)
    assert leaf_calls(model, run, prefix, nn.Linear(1, 1))[1] == 0  # a layer that is never called changes nothing


def held(prefix: Prefix) -> int:
    storages = [
        leaf.untyped_storage()
        for call in prefix.calls if call.output
        for leaf in call.output.leaves if isinstance(leaf, Tensor)
    ]  # fmt: skip
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def test_memory_stays_within_the_limit_and_goes_to_the_outer_modules():
    model, inputs = unet()
    run = run_of(model, inputs)
    everything = held(record([model], run))
    for limit in (everything, everything // 2, everything // 10, 0):
        prefix = record([model], run, limit)
        assert held(prefix) <= limit
        assert (held(prefix) == everything) == (limit == everything)
    blocks = record([model], run, everything // 3)
    kept = {call.module for call in blocks.calls if call.output}
    assert set(model.down_blocks) <= kept and model.conv_in in kept
    assert {call.module for call in record([model], run, deepest=0).calls if call.output} == {model}


def test_what_the_first_call_returns_may_be_known():
    """The head's first output is replaced; it is called again afterwards, and that is computed."""
    net = Twice().eval()
    run = run_of(net, {"x": torch.randn(3, 6)})
    prefix = record([net], run)
    with changed(net.tail), torch.no_grad():
        expected = run()
        with resumed(prefix, net.tail, known=(net, expected + 1)):
            assert torch.equal(run(), expected + 1)
            assert torch.equal(run(), expected)
        with resumed(prefix, net.head, known=(net.tail, expected)):  # the head came before the tail: unusable
            assert torch.equal(run(), expected)
    full = run()
    with resumed(prefix, net.tail, known=(nn.Linear(1, 1), None)):
        assert torch.equal(run(), full)


def test_only_the_first_call_is_known():
    net = Often()
    run = run_of(net, {"x": torch.randn(3, 6)})
    full = run()
    with resumed(record([net], run), net.tail, known=(net.middle, torch.ones(3, 6))):
        assert torch.equal(run(), full)  # the second call's output is looked up


def test_forwards_that_were_there_before_are_put_back():
    net = Twice()
    run = run_of(net, {"x": torch.randn(3, 6)})
    original = net.head.forward
    net.head.forward = lambda x: original(2 * x)
    mine, full = net.head.forward, run()
    prefix = record([net], run)
    with pytest.raises(RuntimeError, match="stop"), resumed(prefix, net.tail):
        raise RuntimeError("stop")
    assert net.head.forward is mine and torch.equal(run(), full)
    assert [name for name, module in net.named_modules() if "forward" in vars(module)] == ["head"]


def test_tensors_of_inference_mode_are_computed_as_ever():
    net = Twice()
    x = torch.randn(3, 6)
    with torch.inference_mode():
        full, prefix = net(x), record([net], lambda: net(x))
        with resumed(prefix, net.tail):
            assert torch.equal(net(x), full)
    assert not any(call.output for call in prefix.calls)
