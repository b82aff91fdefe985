"""LoRAs on packed pipelines of every class of the zoo act as on float ones; rows of docs/compatibility.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import diffusers
import pytest
import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

import bitplan
from bitplan.planner.errors import UserError
from bitplan.planner.pipelines.subject import run_subject, subject_of
from bitplan.plans.layers import modules
from bitplan.plans.layers.modules import is_packed
from bitplan.plans.plan import Plan
from tests.packed import plan_for, same, stored
from tests.planner.applied.loras import Adapter, adapter_for, file_of, term
from tests.zoo import ZOO

torch.set_num_threads(1)
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


def plan_of(case: Case) -> Plan:
    """int8, 8-bit weights, and float in turn, as far as there are kernels."""
    plan = plan_for(case.pipe, [case.name], ("w8a8", "w8a16", "keep"))

    def scheme_of(address: str, scheme: str) -> str:
        layer = case.model.get_submodule(address.partition(".")[2])
        if getattr(layer, "groups", 1) > 1:
            return "keep"
        return scheme if scheme == "keep" or isinstance(layer, nn.Linear) else "w8a16"

    return replace(plan, schemes={address: scheme_of(address, scheme) for address, scheme in plan.schemes.items()})


def check_layers(case: Case, before: Mapping[str, nn.Module], sums: Iterable[tuple[Adapter, float]]) -> None:
    """Runs; each layer's output is that of the layer from before plus the terms of the LoRAs, to float rounding."""
    packed = 0

    def check(path: str, x: Tensor, out: Tensor) -> None:
        nonlocal packed
        layer = before[path]
        expected = layer(x) + sum(scale * term(layer, x, adapter[path]) for adapter, scale in sums)
        torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
        packed += is_packed(layer)

    with ExitStack() as stack:
        for path in case.layers:
            wrapper = case.model.get_submodule(path)
            assert isinstance(wrapper, LoraLayer) and wrapper.base_layer is before[path]
            hook = wrapper.register_forward_hook(lambda _, args, out, path=path: check(path, args[0], out))
            stack.callback(hook.remove)
        case.run()
    assert packed >= len(case.layers) / 3


@pytest.mark.parametrize("name", TAKING)
def test_loras_on_every_class(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two LoRAs by their scales, one exchanged in place, none fused, and all unloaded; no weight is dequantized."""
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
    with monkeypatch.context() as patched:
        patched.delattr(modules, "dequantize")
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_a_lora_on_a_packed_text_encoder(dtype: torch.dtype) -> None:
    """In the float type of the pipeline."""
    pipe = ZOO["StableDiffusionPipeline"].build()
    encoder, part = pipe.text_encoder, "text_encoder"
    layers = [f"encoder.layers.0.self_attn.{name}_proj" for name in "qkv"]
    adapter = adapter_for(encoder, layers, 0)
    bitplan.apply(pipe, plan_for(pipe, [part], ("w8a8", "keep", "w8a16"))).to(dtype)
    before, words = {path: encoder.get_submodule(path) for path in layers}, torch.arange(8)[None]
    plain = encoder(words)[0]
    pipe.load_lora_weights(file_of(adapter, part), "first")
    pipe.set_adapters("first", 0.5)
    x = torch.randn(3, 32).to(dtype)
    for path, layer in before.items():
        expected = layer(x) + 0.5 * term(layer, x, tuple(t.to(dtype) for t in adapter[path]))
        torch.testing.assert_close(encoder.get_submodule(path)(x), expected)
    assert (encoder(words)[0] - plain).abs().max() > 0.01
    pipe.unload_lora_weights()
    assert torch.equal(encoder(words)[0], plain)


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
