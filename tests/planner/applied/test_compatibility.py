"""What diffusers users do with a pipeline, done with a packed one; each test is a row of docs/compatibility.md."""

from __future__ import annotations

import ast
import copy
import io
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import accelerate
import pytest
import torch
from diffusers import (
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.hooks import group_offloading
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from diffusers.models.modeling_utils import get_parameter_dtype
from peft import LoraConfig, inject_adapter_in_model
from peft.utils import get_peft_model_state_dict
from torch.fx.experimental.proxy_tensor import make_fx

import bitplan
from bitplan.planner.applied.diffusers_quantizer import BitPlanQuantizer
from bitplan.planner.errors import UserError
from bitplan.plans.kernels import KernelError
from bitplan.plans.layers.modules import PACKED, QuantConv2d, QuantLinear, module_bytes, without_compute
from bitplan.plans.plan import Plan
from tests import attending, tiny
from tests.packed import paint, plan_for, same, stored

torch.set_num_threads(1)
DOC = Path(__file__).parents[3] / "docs" / "compatibility.md"
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "conv1", "proj_in"]


@pytest.fixture(scope="module")
def plan() -> Plan:
    return plan_for(tiny.build_pipeline())


@pytest.fixture(scope="module")
def folder(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline saved packed."""
    pipe = bitplan.apply(tiny.build_pipeline(), plan)
    path = tmp_path_factory.mktemp("packed")
    pipe.save_pretrained(path)
    return path


@pytest.fixture
def packed(folder: Path) -> Any:
    """It, loaded."""
    return DiffusionPipeline.from_pretrained(folder)


@pytest.fixture(scope="module")
def picture(plan: Plan) -> torch.Tensor:
    """What the pipeline paints right after the plan was applied."""
    return paint(bitplan.apply(tiny.build_pipeline(), plan))


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two adapters for the tiny UNet, one on linear layers alone and one on convolutions too."""
    path = tmp_path_factory.mktemp("lora")
    for seed, targets in enumerate((TARGETS[:3], TARGETS)):
        unet = tiny.build_pipeline().unet
        torch.manual_seed(seed)
        unet.add_adapter(LoraConfig(r=4, lora_alpha=8, init_lora_weights=False, target_modules=targets))
        StableDiffusionPipeline.save_lora_weights(
            path, unet_lora_layers=get_peft_model_state_dict(unet), weight_name=f"{seed}.safetensors"
        )
    return path


def with_loras(pipe: Any, lora: Path) -> Any:
    for seed in range(2):
        pipe.load_lora_weights(lora, weight_name=f"{seed}.safetensors", adapter_name=f"a{seed}")
    return pipe


def test_save_pretrained_and_from_pretrained(packed: Any, folder: Path, picture: torch.Tensor, tmp_path: Path) -> None:
    assert torch.equal(paint(packed), picture)
    packed.save_pretrained(tmp_path / "again")
    for file in ("config.json", "diffusion_pytorch_model.safetensors"):
        pairs = [(root / "unet" / file).read_bytes() for root in (folder, tmp_path / "again")]
        assert pairs[0] == pairs[1] or file == "config.json"
    held = sum(tensor.nbytes for tensor in packed.unet.state_dict().values())
    size = (folder / "unet" / "diffusion_pytorch_model.safetensors").stat().st_size
    assert 0 < size - held < 200 * len(packed.unet.state_dict())  # the header


def test_a_process_without_bitplan_is_told(folder: Path) -> None:
    code = f"""
from diffusers import UNet2DConditionModel
try:
    UNet2DConditionModel.from_pretrained({str(folder)!r}, subfolder="unet")
except ValueError as error:
    print(error)
import bitplan
print(type(UNet2DConditionModel.from_pretrained({str(folder)!r}, subfolder="unet").conv_in).__name__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    told, kind = done.stdout.splitlines()
    assert told.startswith("Unknown quantization type, got bitplan") and kind == "QuantConv2d"


def test_shards_and_variants(packed: Any, picture: torch.Tensor, tmp_path: Path) -> None:
    packed.save_pretrained(tmp_path, max_shard_size="100KB", variant="int")
    assert len(list((tmp_path / "unet").glob("*.safetensors"))) > 4
    again = DiffusionPipeline.from_pretrained(tmp_path, variant="int")
    assert torch.equal(paint(again), picture)
    again.save_pretrained(tmp_path, max_shard_size="100KB", variant="int")  # over the files that it is mapped from
    assert torch.equal(paint(again), picture)
    assert torch.equal(paint(DiffusionPipeline.from_pretrained(tmp_path, variant="int")), picture)


def test_pickled_weights(packed: Any, tmp_path: Path) -> None:
    packed.unet.save_pretrained(tmp_path, safe_serialization=False)
    assert same(stored(UNet2DConditionModel.from_pretrained(tmp_path, use_safetensors=False)), stored(packed.unet))


def test_quantization_config(plan: Plan, picture: torch.Tensor, tmp_path: Path) -> None:
    tiny.save_pipeline(tmp_path)
    pipe = DiffusionPipeline.from_pretrained(tmp_path, quantization_config=bitplan.config(plan))
    assert torch.equal(paint(pipe), picture)
    unet = UNet2DConditionModel.from_pretrained(
        tmp_path, subfolder="unet", quantization_config=bitplan.config(plan, "unet")
    )
    assert same(stored(unet), stored(pipe.unet))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_torch_dtype(folder: Path, plan: Plan, dtype: torch.dtype, tmp_path: Path) -> None:
    reference = bitplan.apply(tiny.build_pipeline(), plan)
    tiny.save_pipeline(tmp_path)
    for path, options in ((folder, {}), (tmp_path, {"quantization_config": bitplan.config(plan)})):
        pipe = DiffusionPipeline.from_pretrained(path, torch_dtype=dtype, **options)
        assert same(stored(pipe.unet), stored(reference.unet))
        assert pipe.unet.dtype == pipe.unet.conv_in.bias.dtype == pipe.unet.conv_in.weight.dtype == dtype
        torch.testing.assert_close(paint(pipe), paint(reference), atol=0.1, rtol=0)


def test_device_map(folder: Path, picture: torch.Tensor) -> None:
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", device_map={"": "cpu"})
    assert torch.equal(paint(DiffusionPipeline.from_pretrained(folder, unet=unet)), picture)


def test_offload_to_disk(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="offloaded to disk"):
        UNet2DConditionModel.from_pretrained(
            folder, subfolder="unet", device_map={"": "disk"}, offload_folder=str(tmp_path)
        )


def test_from_single_file(plan: Plan) -> None:
    quantizer = BitPlanQuantizer(bitplan.config(plan, "unet"), pre_quantized=False)
    with pytest.raises(UserError, match="from_single_file"):
        quantizer.preprocess_model(tiny.build_unet(), device_map=None, keep_in_fp32_modules=[])


def test_text_encoder(tmp_path: Path) -> None:
    both = plan_for(tiny.build_pipeline(), ("unet", "text_encoder"))
    pipe = bitplan.apply(tiny.build_pipeline(), both)
    expected = paint(pipe)
    pipe.save_pretrained(tmp_path / "packed")
    again = DiffusionPipeline.from_pretrained(tmp_path / "packed", torch_dtype=torch.float32)
    assert same(stored(again.text_encoder), stored(pipe.text_encoder)) and torch.equal(paint(again), expected)
    half = DiffusionPipeline.from_pretrained(tmp_path / "packed", torch_dtype=torch.bfloat16).text_encoder
    assert same(stored(half), stored(pipe.text_encoder)) and half.dtype == torch.bfloat16


def test_text_encoder_while_loading(tmp_path: Path) -> None:
    both = plan_for(tiny.build_pipeline(), ("unet", "text_encoder"))
    with pytest.raises(UserError, match="text_encoder is a model of transformers.*call bitplan.apply"):
        DiffusionPipeline.from_pretrained(tiny.save_pipeline(tmp_path), quantization_config=bitplan.config(both))


def test_load_lora_weights(packed: Any, lora: Path, picture: torch.Tensor) -> None:
    weights = stored(packed.unet)
    with_loras(packed, lora)
    assert isinstance(packed.unet.conv_in, QuantConv2d)
    adapted = paint(packed)
    assert (adapted - picture).abs().max() > 1e-3
    packed.unload_lora_weights()
    assert same(stored(packed.unet), weights) and torch.equal(paint(packed), picture)


def test_set_adapters(packed: Any, lora: Path, picture: torch.Tensor) -> None:
    with_loras(packed, lora)
    pictures = []
    for names, weights in ((["a0"], [1.0]), (["a1"], [1.0]), (["a0", "a1"], [0.3, 0.9]), (["a0", "a1"], [0.0, 0.0])):
        packed.set_adapters(names, weights)
        pictures.append(paint(packed))
    assert all((pictures[0] - other).abs().max() > 1e-3 for other in pictures[1:])
    torch.testing.assert_close(pictures[-1], picture)
    packed.disable_lora()
    assert torch.equal(paint(packed), picture)
    packed.enable_lora()
    packed.delete_adapters("a0")
    packed.set_adapters(["a1"])
    assert torch.equal(paint(packed), pictures[1])


def test_a_lora_acts_as_on_the_float_layer(lora: Path) -> None:
    """Beside 8-bit weights it moves the picture as it does beside float ones."""
    fine = plan_for(tiny.build_pipeline(), schemes=("w8a16",))
    packed, plain = bitplan.apply(tiny.build_pipeline(), fine), tiny.build_pipeline()
    moved = [(paint(with_loras(pipe, lora)), pipe.unload_lora_weights(), paint(pipe)) for pipe in (packed, plain)]
    deltas = [after - before for after, _, before in moved]
    assert deltas[1].abs().max() > 1e-2
    torch.testing.assert_close(*deltas, atol=0.1 * float(deltas[1].abs().max()), rtol=0)


def test_save_pretrained_with_a_lora(packed: Any, lora: Path, tmp_path: Path) -> None:
    with_loras(packed, lora)
    with pytest.raises(UserError, match="unload_lora_weights first"):
        packed.save_pretrained(tmp_path)


def test_fuse_lora(packed: Any, lora: Path) -> None:
    adapted = paint(with_loras(packed, lora))
    with pytest.raises(UserError, match="LoRA cannot be fused"):
        packed.fuse_lora()
    assert torch.equal(paint(packed), adapted)
    layer = packed.unet.down_blocks[1].attentions[0].transformer_blocks[0].attn1.to_q
    with pytest.raises(KernelError, match="LoRA cannot be fused"):
        layer.merge()


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


def test_pickle(packed: Any, picture: torch.Tensor, tmp_path: Path) -> None:
    file = io.BytesIO()
    torch.save(packed.unet, file)
    file.seek(0)
    packed.unet = torch.load(file, weights_only=False)
    assert torch.equal(paint(packed), picture)
    packed.save_pretrained(tmp_path)
    assert torch.equal(paint(DiffusionPipeline.from_pretrained(tmp_path)), picture)
    layer = packed.unet.conv_in
    assert torch.equal(pickle.loads(pickle.dumps(layer)).weight, layer.weight)


def test_state_dict(packed: Any, picture: torch.Tensor, plan: Plan) -> None:
    other = bitplan.apply(tiny.build_pipeline(seed=1), plan, allow_mismatch=True)
    other.vae, other.text_encoder = packed.vae, packed.text_encoder
    assert not torch.equal(paint(other), picture)
    other.unet.load_state_dict(packed.unet.state_dict())
    assert torch.equal(paint(other), picture)


@pytest.fixture
def attention() -> attending.Attending:
    """Packed in part."""
    net = attending.build()
    bitplan.apply(attending.made(net), plan_for(SimpleNamespace(net=net), ["net"], ("w8a8", "w4a8", "keep")))
    return net


@torch.no_grad()
def test_multihead_attention(attention: attending.Attending, tmp_path: Path) -> None:
    attention.save_pretrained(tmp_path)
    again = attending.Attending.from_pretrained(tmp_path)
    assert torch.equal(again(*attending.inputs()), attention(*attending.inputs()))
    assert {"plain.k_proj.codes", "plain.q_proj.weight"} < set(again.state_dict())


def test_a_lora_on_multihead_attention(attention: attending.Attending) -> None:
    out = attention(*attending.inputs())
    with pytest.raises(ValueError, match="Only same embed"):
        inject_adapter_in_model(LoraConfig(target_modules=["plain"]), attention)
    inject_adapter_in_model(LoraConfig(target_modules=["plain.k_proj"], init_lora_weights=False), attention)
    assert not torch.allclose(attention(*attending.inputs()), out)


def test_from_pipe(packed: Any, picture: torch.Tensor) -> None:
    other = StableDiffusionImg2ImgPipeline.from_pipe(packed)
    assert other.unet is packed.unet
    assert (
        other("a cat", image=torch.rand(1, 3, 16, 16), num_inference_steps=2, output_type="pt").images.isfinite().all()
    )
    assert torch.equal(paint(packed), picture)


def test_schedulers(packed: Any, picture: torch.Tensor) -> None:
    packed.scheduler = DPMSolverMultistepScheduler.from_config(packed.scheduler.config)
    assert torch.equal(paint(packed), picture)


def test_attention_processors(packed: Any, picture: torch.Tensor) -> None:
    for processor in (AttnProcessor(), AttnProcessor2_0()):
        packed.unet.set_attn_processor(processor)
        torch.testing.assert_close(paint(packed), picture, atol=0.02, rtol=0)
    assert torch.equal(paint(packed), picture)


def test_fuse_qkv_projections(packed: Any, picture: torch.Tensor) -> None:
    with pytest.raises(UserError, match="packed projections cannot be fused"):
        packed.fuse_qkv_projections()
    assert torch.equal(paint(packed), picture)


def test_enable_layerwise_casting(packed: Any, picture: torch.Tensor) -> None:
    with pytest.raises(UserError, match="layerwise casting"):
        packed.unet.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    assert torch.equal(paint(packed), picture)


def test_gradients(packed: Any, lora: Path) -> None:
    with_loras(packed, lora)
    packed.unet.train()
    # the stride of a batch of one is of no meaning, and yet decides how torch sums in a GroupNorm
    inputs = torch.randn(2, 4, 8, 8), 5, torch.randn(2, 7, tiny.WIDTH)
    out = packed.unet(*inputs).sample  # outside of no_grad nothing is refused yet
    with torch.no_grad():
        assert torch.equal(packed.unet(*inputs).sample, out)
    with pytest.raises(KernelError, match="a packed layer has no gradient"):
        out.sum().backward()


def test_requires_grad(packed: Any, picture: torch.Tensor) -> None:
    weights = stored(packed.unet)
    packed.unet.train().requires_grad_(False)
    assert not any(parameter.requires_grad for parameter in packed.unet.parameters())
    packed.unet.requires_grad_(True)
    asking = {name for name, parameter in packed.unet.named_parameters() if parameter.requires_grad}
    assert asking == without_compute(dict(packed.unet.named_parameters())).keys() - weights.keys()
    torch.optim.AdamW(packed.unet.parameters()).step()
    assert same(stored(packed.unet), weights)
    assert torch.equal(paint(packed), picture)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_first_parameter(packed: Any, dtype: torch.dtype, tmp_path: Path) -> None:
    """Pipelines read it as the type of a module's inputs."""
    packed.save_pretrained(tmp_path)
    for pipe in (packed.to(dtype), DiffusionPipeline.from_pretrained(tmp_path, torch_dtype=dtype)):
        layers = [layer for layer in pipe.unet.modules() if isinstance(layer, tuple(PACKED.values()))]
        assert layers and all(next(layer.parameters()).dtype == dtype for layer in layers)


def test_num_parameters(packed: Any) -> None:
    held = packed.unet.state_dict().values()
    assert packed.unet.num_parameters() == sum(tensor.numel() for tensor in held)
    assert packed.unet.get_memory_footprint() == sum(tensor.nbytes for tensor in held) == module_bytes(packed.unet)


def test_writing_to_a_weight(packed: Any) -> None:
    layer = packed.unet.conv_in
    for write in (
        lambda weight: weight.mul_(2),
        lambda weight: setattr(weight, "data", weight * 2),
        lambda weight: weight.__setitem__(0, 0),
        lambda weight: weight.__iadd__(1),
    ):
        with pytest.raises(KernelError, match="cannot be written to"):
            write(layer.weight)
    assert type(layer.weight * 2) is torch.Tensor and layer.weight.shape == (32, 4, 3, 3)


def test_dequantize(packed: Any) -> None:
    with pytest.raises(UserError, match="does not contain the float weights"):
        packed.unet.dequantize()


def test_planner_restore(packed: Any, plan: Plan, picture: torch.Tensor, tmp_path: Path) -> None:
    for pipe in (packed, copy.deepcopy(packed)):
        with pytest.raises(UserError, match="its float weights were never here"):
            bitplan.restore(pipe)
    pipe = tiny.build_pipeline()
    before = paint(pipe)
    assert torch.equal(paint(bitplan.apply(pipe, plan)), picture)
    assert torch.equal(paint(bitplan.restore(pipe)), before)
    pipe.save_pretrained(tmp_path)  # as a float pipeline
    assert not any(isinstance(m, (QuantLinear, QuantConv2d)) for m in pipe.unet.modules())
    again = DiffusionPipeline.from_pretrained(tmp_path)
    assert torch.equal(paint(again), before) and not hasattr(again.unet, "hf_quantizer")
    pipe.unet.fuse_qkv_projections()


def test_planner_apply(packed: Any, plan: Plan, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="packed by a plan already"):
        bitplan.apply(packed, plan)
    with pytest.raises(UserError, match="packed by a plan already"):
        bitplan.profile(str(folder), tmp_path / "x.profile", clip=str(tiny.save_clip(tmp_path)), **tiny.SETTINGS)


def test_the_table_has_a_row_for_each_test() -> None:
    own = test_the_table_has_a_row_for_each_test.__name__
    tree = ast.parse(Path(__file__).read_text())
    tests = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    rows = re.findall(r"^\| .* \| `(test_\w+)` \|$", DOC.read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(set(tests) - {own}) and len(rows) == len(set(rows))
