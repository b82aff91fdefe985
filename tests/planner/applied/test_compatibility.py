"""What diffusers users do with a pipeline, done with a packed one; each test is a row of docs/compatibility.md."""

from __future__ import annotations

import ast
import copy
import io
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    StableDiffusionImg2ImgPipeline,
    UNet2DConditionModel,
)
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

import bitplan
from bitplan.planner.applied.diffusers_quantizer import BitPlanQuantizer
from bitplan.planner.errors import UserError
from bitplan.plans.kernels import KernelError
from bitplan.plans.layers.modules import QuantConv2d, QuantLinear, is_packed, module_bytes
from bitplan.plans.layers.stored import without_compute
from bitplan.plans.plan import Plan
from tests import tiny
from tests.packed import paint, plan_for, same, stored

torch.set_num_threads(1)
DOC = Path(__file__).parents[3] / "docs" / "compatibility.md"


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
        pipe = DiffusionPipeline.from_pretrained(path, dtype=dtype, **options)
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
    again = DiffusionPipeline.from_pretrained(tmp_path / "packed", dtype=torch.float32)
    assert same(stored(again.text_encoder), stored(pipe.text_encoder)) and torch.equal(paint(again), expected)
    half = DiffusionPipeline.from_pretrained(tmp_path / "packed", dtype=torch.bfloat16).text_encoder
    assert same(stored(half), stored(pipe.text_encoder)) and half.dtype == torch.bfloat16


def test_text_encoder_while_loading(tmp_path: Path) -> None:
    both = plan_for(tiny.build_pipeline(), ("unet", "text_encoder"))
    with pytest.raises(UserError, match="text_encoder is a model of transformers.*call bitplan.apply"):
        DiffusionPipeline.from_pretrained(tiny.save_pipeline(tmp_path), quantization_config=bitplan.config(both))


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
    for pipe in (packed.to(dtype), DiffusionPipeline.from_pretrained(tmp_path, dtype=dtype)):
        layers = [layer for layer in pipe.unet.modules() if is_packed(layer)]
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
    files = Path(__file__).parent.glob("test_compatibility*.py")
    nodes = [node for file in files for node in ast.parse(file.read_text()).body]
    tests = [node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    rows = re.findall(r"^\| .* \| `(test_\w+)` \|$", DOC.read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(set(tests) - {own}) and len(rows) == len(set(rows))
