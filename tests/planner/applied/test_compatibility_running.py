"""A packed pipeline runs, moves and compiles, or refuses to, as docs/compatibility.md says."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import accelerate
import pytest
import torch
from diffusers.hooks import group_offloading
from diffusers.models.modeling_utils import get_parameter_dtype
from torch.fx.experimental.proxy_tensor import make_fx

import bitplan
from bitplan.planner.errors import UserError
from bitplan.plans.kernels import KernelError
from bitplan.plans.layers.modules import QuantConv2d, QuantLinear, is_packed
from bitplan.plans.plan import Plan
from tests import tiny
from tests.packed import paint, same, stored

torch.set_num_threads(1)


def test_enable_model_cpu_offload(packed: Any, picture: torch.Tensor) -> None:
    packed.enable_model_cpu_offload(device="cpu")
    assert torch.equal(paint(packed), picture) and torch.equal(paint(packed), picture)


def test_enable_sequential_cpu_offload(packed: Any, picture: torch.Tensor) -> None:
    # what it does to each component; itself it takes no plain "cpu" to compute on
    accelerate.cpu_offload(packed.unet, torch.device("cpu"), offload_buffers=len(packed.unet._parameters) > 0)
    for _ in range(2):  # between calls nothing is left on the accelerator
        assert all(tensor.is_meta for tensor in packed.unet.parameters())
        assert torch.equal(paint(packed), picture)


class Streams:
    """Group offloading with streams, to an accelerator that is memory of the CPU: what it moved there, and back."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.moved: list[torch.Tensor] = []
        self.streamed: list[torch.Tensor] = []  # the rest is put back by `.to`, which changes nothing on one device
        stream = SimpleNamespace(synchronize=lambda: None)
        backend = SimpleNamespace(Stream=lambda: stream, stream=lambda _: nullcontext(), current_stream=lambda: stream)
        patch.setattr(group_offloading, "TorchDeviceBackend", lambda device: backend)
        patch.setattr(group_offloading, "send_to_device", lambda inputs, *_, **__: inputs)
        group = group_offloading.ModuleGroup
        patch.setattr(group, "_to_cpu", staticmethod(lambda tensor, low_cpu_mem_usage: tensor.data))
        patch.setattr(group, "_pinned_memory_tensors", lambda group: nullcontext(group.cpu_param_dict))
        patch.setattr(group, "_transfer_tensor_to_device", self._move)

    def _move(self, tensor: torch.Tensor, source: torch.Tensor, stream: Any) -> None:
        tensor.data = source.clone()
        self.moved.append(tensor.data)
        self.streamed += [tensor.data] if stream is not None else []

    def there(self, layer: torch.nn.Module) -> bool:
        return all(
            tensor.data_ptr() in {held.data_ptr() for held in self.moved}
            for tensor in layer.state_dict().values()
            if tensor.numel()
        )

    def left(self, layer: torch.nn.Module) -> bool:
        return any(
            tensor.data_ptr() in {held.data_ptr() for held in self.streamed}
            for tensor in layer.state_dict().values()
            if tensor.numel()
        )


def addresses(tensors: Iterable[torch.Tensor]) -> set[int]:
    return {tensor.data_ptr() for tensor in tensors if tensor.numel()}


def watched(layer: Any, look: Callable[[Any], object]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Its forward, before which somebody looks at it: within that of diffusers' hooks, put around it later."""
    run = layer.forward

    def forward(x: torch.Tensor) -> torch.Tensor:
        look(layer)
        return run(x)

    return forward


@pytest.mark.parametrize(
    "options", [{"offload_type": "leaf_level"}, {"offload_type": "block_level", "num_blocks_per_group": 1}]
)
def test_enable_group_offload_with_streams(
    packed: Any, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = torch.randn(1, 4, 8, 8), 5, torch.randn(1, 7, tiny.WIDTH)
    with torch.no_grad():
        expected = packed.unet(*inputs).sample
    streams, seen = Streams(monkeypatch), []
    layers = [layer for layer in packed.unet.modules() if isinstance(layer, (QuantLinear, QuantConv2d))]
    for layer in layers:
        layer.forward = watched(layer, lambda layer: seen.append(streams.there(layer)))
    packed.unet.enable_group_offload(torch.device("cuda"), torch.device("cpu"), use_stream=True, **options)
    for _ in range(3):  # the first finds out in which order layers are fetched ahead
        assert not streams.left(packed.unet)
        with torch.no_grad():
            assert torch.equal(packed.unet(*inputs).sample, expected)
    assert all(seen) and len(seen) == 3 * len(layers)
    assert not streams.left(packed.unet) and len(streams.streamed) > len(layers)


@pytest.mark.parametrize(
    "options", [{"offload_type": "leaf_level"}, {"offload_type": "block_level", "num_blocks_per_group": 1}]
)
def test_enable_group_offload(packed: Any, picture: torch.Tensor, options: dict[str, Any]) -> None:
    packed.enable_group_offload(torch.device("cpu"), torch.device("cpu"), **options)
    assert torch.equal(paint(packed), picture) and torch.equal(paint(packed), picture)


def test_to_device(packed: Any, picture: torch.Tensor) -> None:
    assert torch.equal(paint(packed.to("cpu")), picture)
    state = copy.deepcopy(packed.unet.state_dict())
    packed.unet.to("meta")  # a device for which there is no kernel: layers may lie there
    assert packed.unet.conv_in.codes.is_meta and "kernel=None" in repr(packed.unet.conv_in)
    with pytest.raises(KernelError, match="no kernel runs w8a8 on a conv2d layer on meta"):
        packed.unet.conv_in(torch.zeros(1, 4, 8, 8, device="meta"))
    packed.unet.to_empty(device="cpu").load_state_dict(state)
    assert torch.equal(paint(packed), picture)


def test_to_dtype(packed: Any, picture: torch.Tensor) -> None:
    weights = stored(packed.unet)
    packed.to(torch.bfloat16)
    assert packed.unet.dtype == packed.unet.conv_in.weight.dtype == torch.bfloat16
    torch.testing.assert_close(paint(packed), picture, atol=0.1, rtol=0)
    for cast in (packed.unet.half, packed.unet.float):
        assert same(stored(cast()), weights)
    assert packed.unet.conv_in(torch.zeros(1, 4, 8, 8)).dtype == torch.float32
    bare = packed.unet.down_blocks[1].attentions[0].transformer_blocks[0].attn1.to_q.to(torch.bfloat16)
    assert bare.bias is None and get_parameter_dtype(bare) == torch.bfloat16  # its scale does not pass for its type


def test_deepcopy(packed: Any, picture: torch.Tensor) -> None:
    twin = copy.deepcopy(packed)
    with torch.no_grad():
        packed.unet.conv_in.codes.zero_()
    assert torch.equal(paint(twin), picture) and not torch.equal(paint(packed), picture)
    with pytest.raises(UserError, match="LoRA cannot be fused"):
        twin.unet.fuse_lora()


@pytest.mark.parametrize("loaded", [True, False])
def test_torch_compile(loaded: bool, packed: Any, plan: Plan) -> None:
    """Without a graph break, for every kind of scheme; what inductor makes of one layer is tested with the kernels."""
    unet = (packed if loaded else bitplan.apply(tiny.build_pipeline(), plan)).unet
    inputs = (torch.randn(2, 4, 8, 8), torch.tensor(3), torch.randn(2, 5, tiny.WIDTH))
    torch._dynamo.reset()
    compiled = torch.compile(unet, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        expected, found = unet(*inputs).sample, compiled(*inputs).sample
    # roundings of inputs that fall the other way are carried on
    assert float((found - expected).norm() / expected.norm()) < 0.02


INPUTS = (torch.randn(2, 4, 8, 8), torch.tensor(3), torch.randn(2, 5, tiny.WIDTH))


def test_autocast(packed: Any) -> None:
    taken: list[tuple[torch.dtype, torch.dtype]] = []
    layer, twin = packed.unet.conv_in, tiny.build_pipeline().unet.conv_in
    for each in (layer, twin):
        each.register_forward_hook(lambda module, args, out: taken.append((args[0].dtype, out.dtype)))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        packed.unet(*INPUTS)
        twin(INPUTS[0])
        assert torch.equal(layer(INPUTS[0]), layer(INPUTS[0].bfloat16()))
    assert set(taken) <= {(torch.float32, torch.bfloat16), (torch.bfloat16, torch.bfloat16)}
    assert taken[0] == taken[1] == (torch.float32, torch.bfloat16)


def test_torch_export(packed: Any) -> None:
    with torch.no_grad():
        exported, expected = torch.export.export(packed.unet, INPUTS).module(), packed.unet(*INPUTS).sample
        assert float((exported(*INPUTS).sample - expected).norm() / expected.norm()) < 0.02


def test_recorders(packed: Any) -> None:
    def call(sample: torch.Tensor) -> Any:
        return packed.unet(sample, *INPUTS[1:]).sample

    for record in (torch.jit.trace, lambda function, x: make_fx(function)(x)):
        with pytest.raises(KernelError, match="use torch.compile or torch.export"):
            record(call, INPUTS[0])
    for record in (torch.jit.script, torch.fx.symbolic_trace):
        with pytest.raises(KernelError, match="use torch.compile or torch.export"):
            record(torch.nn.Sequential(packed.unet.conv_in))


def test_functional_call(packed: Any, plan: Plan) -> None:
    other = bitplan.apply(tiny.build_pipeline(seed=1), plan, allow_mismatch=True)
    with torch.no_grad():
        expected = other.unet(*INPUTS).sample
        found = torch.func.functional_call(packed.unet, dict(other.unet.named_parameters()), INPUTS).sample
        assert not torch.equal(packed.unet(*INPUTS).sample, expected)
    assert torch.equal(found, expected)  # both have the ranges of the plan


def test_vmap_and_forward_mode(packed: Any) -> None:
    def call(sample: torch.Tensor) -> Any:
        return packed.unet(sample, *INPUTS[1:]).sample

    with torch.no_grad():
        with pytest.raises(KernelError, match=r"vmap; give them the mapped dimension as part of the batch"):
            torch.vmap(call)(INPUTS[0][None])
        with pytest.raises(KernelError, match="forward-mode differentiation: a packed layer has no gradient"):
            torch.func.jvp(call, INPUTS[:1], INPUTS[:1])


def test_empty_batches(packed: Any) -> None:
    with torch.no_grad():
        for module in packed.unet.modules():
            if hasattr(module, "packed") and isinstance(module, torch.nn.Conv2d):
                channels, outputs = module.in_channels, module.out_channels
                assert module(torch.empty(0, channels, 6, 6)).shape[:2] == (0, outputs)


def test_inputs_of_another_width(packed: Any) -> None:
    layers = [module for module in packed.unet.modules() if is_packed(module)]
    for layer in layers:
        shape = [2, layer.weight.shape[1] + 1, *[6] * (layer.weight.dim() - 2)]
        with pytest.raises(KernelError, match="does not fit a"):
            layer(torch.zeros(shape))
