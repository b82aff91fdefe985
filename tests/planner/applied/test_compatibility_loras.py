"""LoRAs on packed pipelines of every class of the zoo act as on float ones; rows of docs/compatibility.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn import functional

import bitplan
from bitplan.planner.errors import UserError
from bitplan.planner.pipelines.subject import run_subject, subject_of
from bitplan.plans.layers.modules import PACKED
from bitplan.plans.plan import Plan
from tests.packed import plan_for, same, stored
from tests.zoo import ZOO

torch.set_num_threads(1)
Adapter = Mapping[str, tuple[Tensor, Tensor]]  # path of a layer -> its A and B
TAKING = [name for name in ZOO if hasattr(getattr(diffusers, name), "load_lora_weights")]
MOST = 24  # layers that get a LoRA
LOADABLE = ("unet", "text_encoder")
MIXED = {"first": 0.7, "second": -0.4}


@dataclass(frozen=True, eq=False)
class Case:
    """A pipeline, the name of its denoiser, and the first call of it."""

    pipe: Any
    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    layers: tuple[str, ...]  # those that a LoRA can be put on: peft takes no inputs by name

    @property
    def model(self) -> Any:
        return getattr(self.pipe, self.name)

    @torch.no_grad()
    def run(self) -> Tensor:
        torch.manual_seed(0)
        out = self.model(*self.args, **self.kwargs)
        return out[0] if not isinstance(out[0], list) else torch.stack(out[0])

    def load(self, adapter: Adapter, name: str, **options: Any) -> None:
        """As a file of that LoRA would be loaded."""
        self.pipe.load_lora_weights(file_of(adapter, self.name), adapter_name=name, **options)


def case_of(name: str) -> Case:
    animal = ZOO[name]
    pipe = animal.build()
    denoiser = next(part for part in animal.iterates if part in pipe._lora_loadable_modules)
    model, calls, layers = getattr(pipe, denoiser), [], []

    def seen(module: nn.Module, args: tuple[Any, ...], kwargs: Any) -> None:
        if module is model:
            calls.append((args, kwargs))
        elif args and (type(module) is nn.Linear or (type(module) is nn.Conv2d and module.groups == 1)):
            layers.append(next(path for path, other in model.named_modules() if other is module))

    with ExitStack() as stack:
        for module in model.modules():
            stack.callback(module.register_forward_pre_hook(seen, with_kwargs=True).remove)
        run_subject(subject_of(pipe, replace(animal.generation, steps=2)), animal.conditions[:1], 0)
    some = list(dict.fromkeys(layers))
    return Case(pipe, denoiser, *calls[0], tuple(some[:: -(-len(some) // MOST)]))


def adapter_for(model: nn.Module, layers: Iterable[str], seed: int, rank: int = 2) -> Adapter:
    random = torch.Generator().manual_seed(seed)

    def pair(layer: Any) -> tuple[Tensor, Tensor]:
        a, b = torch.empty(rank, *layer.weight.shape[1:]), torch.empty(layer.weight.shape[0], rank)
        a.normal_(std=a[0].numel() ** -0.5, generator=random)
        return a, b.normal_(std=0.3, generator=random)[(..., *[None] * (a.dim() - 2))]

    return {path: pair(model.get_submodule(path)) for path in layers}


def file_of(adapter: Adapter, name: str) -> dict[str, Tensor]:
    """The tensors of a file with that LoRA for the component `name`."""
    pairs = {path: {"A": a, "B": b} for path, (a, b) in adapter.items()}
    return {f"{name}.{path}.lora_{x}.weight": t.clone() for path, pair in pairs.items() for x, t in pair.items()}


def plan_of(case: Case) -> Plan:
    """int8, 8-bit weights, and float in turn, as far as there are kernels."""
    plan = plan_for(case.pipe, [case.name], ("w8a8", "w8a16", "keep"))

    def scheme_of(address: str, scheme: str) -> str:
        layer = case.model.get_submodule(address.partition(".")[2])
        if getattr(layer, "groups", 1) > 1:
            return "keep"
        return scheme if scheme == "keep" or isinstance(layer, nn.Linear) else "w8a16"

    return replace(plan, schemes={address: scheme_of(address, scheme) for address, scheme in plan.schemes.items()})


def term(layer: Any, x: Tensor, pair: tuple[Tensor, Tensor]) -> Tensor:
    """What a LoRA adds to the output of a layer."""
    a, b = pair
    if a.dim() == 2:
        return functional.linear(functional.linear(x, a), b)
    return functional.conv2d(functional.conv2d(x, a, None, layer.stride, layer.padding, layer.dilation), b)


def check_layers(case: Case, before: Mapping[str, nn.Module], sums: Iterable[tuple[Adapter, float]]) -> None:
    """Runs; each layer's output is that of the layer from before plus the terms of the LoRAs, to float rounding."""
    packed = 0

    def check(path: str, x: Tensor, out: Tensor) -> None:
        nonlocal packed
        layer = before[path]
        expected = layer(x) + sum(scale * term(layer, x, adapter[path]) for adapter, scale in sums)
        torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
        packed += isinstance(layer, tuple(PACKED.values()))

    with ExitStack() as stack:
        for path in case.layers:
            wrapper = case.model.get_submodule(path)
            assert isinstance(wrapper, LoraLayer) and wrapper.base_layer is before[path]
            hook = wrapper.register_forward_hook(lambda _, args, out, path=path: check(path, args[0], out))
            stack.callback(hook.remove)
        case.run()
    assert packed >= len(case.layers) / 3


@pytest.mark.parametrize("name", TAKING)
def test_loras_on_every_class(name: str) -> None:
    """Two LoRAs by their scales, one exchanged in place, none fused, and all unloaded."""
    case = case_of(name)
    one, two, three = (adapter_for(case.model, case.layers, seed, rank) for seed, rank in enumerate((2, 2, 3)))
    scales = tuple(MIXED.values())

    def load() -> Tensor:
        case.pipe.enable_lora_hotswap(target_rank=3)
        case.load(one, "first")
        case.load(two, "second")
        case.pipe.set_adapters(list(MIXED), list(scales))
        return case.run()

    plain, plain_moved = case.run(), load()
    case.pipe.unload_lora_weights()
    bitplan.apply(case.pipe, plan_of(case))
    base, weights = case.run(), stored(case.model)
    before = {path: case.model.get_submodule(path) for path in case.layers}
    moved = load()
    error, delta = float((base - plain).norm()), float((plain_moved - plain).norm())
    assert float(((moved - base) - (plain_moved - plain)).norm()) < 1.5 * error < 0.5 * delta
    check_layers(case, before, list(zip((one, two), scales, strict=True)))

    with pytest.raises(UserError, match="LoRA cannot be fused"):
        case.pipe.fuse_lora()
    assert torch.equal(case.run(), moved)
    case.load(three, "first", hotswap=True)
    case.pipe.set_adapters("first")
    check_layers(case, before, [(three, 1.0)])
    case.pipe.unload_lora_weights()
    assert same(stored(case.model), weights) and torch.equal(case.run(), base)


def flux(**config: Any) -> Any:
    """A pipeline that takes Control LoRAs. config: what differs in its transformer."""
    pipe = ZOO["FluxPipeline"].build()
    if config:
        torch.manual_seed(0)
        pipe.transformer = type(pipe.transformer).from_config({**pipe.transformer.config, **config})
    return pipe


def inputs(channels: int) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    return {
        "hidden_states": torch.randn(1, 4, channels, generator=random),
        "encoder_hidden_states": torch.randn(1, 3, 32, generator=random),
        "pooled_projections": torch.randn(1, 32, generator=random),
        "timestep": torch.tensor([0.5]), "guidance": torch.tensor([3.0]), "img_ids": torch.zeros(4, 3),
        "txt_ids": torch.zeros(3, 3),
    }  # fmt: skip


def pack(pipe: Any, scheme: str) -> Any:
    """With its input layer in that scheme."""
    plan = plan_for(pipe, ["transformer"], ("w8a8", "w8a16"))
    return bitplan.apply(pipe, replace(plan, schemes={**plan.schemes, "transformer.x_embedder": scheme}))


def control_lora() -> dict[str, Tensor]:
    """The tensors of its file; its input layer takes twice as many features."""
    layers = ["x_embedder", "context_embedder", "transformer_blocks.0.attn.to_q", "proj_out"]
    adapter = dict(adapter_for(flux().transformer, layers, 0))
    a, b = adapter["x_embedder"]
    adapter["x_embedder"] = torch.cat([a, a.flip(0)], 1), b
    return file_of(adapter, "transformer") | {"transformer.transformer_blocks.0.attn.norm_q.weight": torch.ones(16) / 2}


@pytest.mark.parametrize("scheme", ["keep", "w8a8t", "w4a16"])
@torch.no_grad()
def test_a_control_lora(scheme: str, tmp_path: Path) -> None:
    """In place of a packed input layer there is a float one with its weight, until the LoRA is reset."""
    plain, pipe = flux(), pack(flux(), scheme)
    layer, weight = pipe.transformer.x_embedder, pipe.transformer.x_embedder.weight.clone()
    before, moved = ([one.transformer(**inputs(16))[0] for one in (plain, pipe)], [])
    for one in (plain, pipe):
        one.load_lora_weights(control_lora(), "control")
        moved.append(one.transformer(**inputs(32))[0])
    error = float((before[1] - before[0]).norm())
    assert float(((moved[1] - before[1]) - (moved[0] - before[0])).norm()) < 1.5 * error
    assert float((moved[0] - before[0]).norm()) > 3 * error
    assert torch.equal(pipe.transformer.x_embedder.weight[:, :16], weight)
    pipe.unload_lora_weights()
    if scheme != "keep":
        with pytest.raises(UserError, match="transformer.x_embedder is .* another layer is in its place"):
            pipe.save_pretrained(tmp_path)
        with pytest.raises(UserError, match="a wider layer in the place of transformer.x_embedder; call unload"):
            bitplan.restore(pipe)
    pipe.to(torch.float64)
    pipe.unload_lora_weights(reset_to_overwritten_params=True)
    assert (pipe.transformer.x_embedder is layer) == (scheme != "keep")
    assert scheme == "keep" or layer.weight.dtype == torch.float64
    pipe.to(torch.float32)
    pipe.save_pretrained(tmp_path)
    bitplan.restore(pipe)
    assert torch.equal(pipe.transformer(**inputs(16))[0], before[0])


@pytest.mark.parametrize("scheme", ["w8a8t", "w4a16"])
@torch.no_grad()
def test_after_a_control_lora(scheme: str) -> None:
    """Unloaded, or not loaded since it fits nowhere, it leaves the packed pipeline as it was."""
    pipe = pack(flux(), scheme)
    layer, before = pipe.transformer.x_embedder, pipe.transformer(**inputs(16))[0]
    broken = control_lora() | {"transformer.proj_out.lora_B.weight": torch.ones(7, 2)}
    with pytest.raises(RuntimeError, match="size mismatch"):
        pipe.load_lora_weights(broken, "broken")
    assert pipe.transformer.x_embedder.base_layer is layer and pipe.transformer.config.in_channels == 16
    assert torch.equal(pipe.transformer(**inputs(16))[0], before)
    pipe.unload_lora_weights()
    pipe.load_lora_weights(control_lora(), "control")
    assert pipe.transformer.config.in_channels == 32
    pipe.unload_lora_weights(reset_to_overwritten_params=True)
    assert pipe.transformer.x_embedder is layer and torch.equal(pipe.transformer(**inputs(16))[0], before)


@torch.no_grad()
def test_a_lora_for_fewer_inputs() -> None:
    """Loaded into a pipeline with a wider input layer, as those of Control LoRAs are, it is filled up with zeros."""
    pipe = flux(in_channels=32, out_channels=16)
    adapter = adapter_for(flux().transformer, ["x_embedder"], 0)
    pack(pipe, "w8a8")
    layer = pipe.transformer.x_embedder
    for name in ("first", "second"):  # the second one goes around a layer that has one
        pipe.load_lora_weights(file_of(adapter, "transformer"), name)
    pipe.set_adapters(["first", "second"], [1.0, 0.5])
    x = inputs(32)["hidden_states"]
    expected = layer(x) + 1.5 * term(layer, x[..., :16], adapter["x_embedder"])
    torch.testing.assert_close(pipe.transformer.x_embedder(x), expected)


def test_fuse_lora_with_a_packed_text_encoder() -> None:
    """It is refused before the float layers, which come first, are fused."""
    pipe = ZOO["StableDiffusionPipeline"].build()
    bitplan.apply(pipe, plan_for(pipe, ["text_encoder"], ("keep", "w8a8")))
    for model in (pipe.unet, pipe.text_encoder):
        model.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["to_q", "q_proj", "k_proj"]))
    state = {name: {k: v.clone() for k, v in getattr(pipe, name).state_dict().items()} for name in LOADABLE}
    for components in (["unet", "text_encoder"], ["text_encoder"]):
        with pytest.raises(UserError, match="text_encoder is packed: a LoRA cannot be fused"):
            pipe.fuse_lora(components)
    assert all(same(state[name], getattr(pipe, name).state_dict()) for name in LOADABLE)
    pipe.fuse_lora(["unet"])
    assert not same(state["unet"], pipe.unet.state_dict())
