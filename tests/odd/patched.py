"""Subjects whose modules something was added to: compiled, scripted, offloaded, cast, cached, or without gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from accelerate import cpu_offload
from accelerate.hooks import CpuOffload, add_hook_to_module
from diffusers import CacheMixin, ConfigMixin, FirstBlockCacheConfig, ModelMixin, PyramidAttentionBroadcastConfig
from diffusers.configuration_utils import register_to_config
from diffusers.hooks import apply_group_offloading, apply_layerwise_casting
from diffusers.hooks.hooks import HookRegistry, ModelHook
from diffusers.models.attention import BasicTransformerBlock
from torch import Tensor, nn

from bitplan.planner.pipelines.subject import Subject
from tests.odd.parts import EXACT, INSIDE, WIDTH, Net, Odd, made, sampled

CPU = torch.device("cpu")


def changed(change: Callable[[Net], Any]) -> Callable[[], Subject]:
    """A plain subject after a change of its net, or with what the change returns as its net."""

    def build() -> Subject:
        net = made(Net)
        new = change(net)
        return sampled(new if isinstance(new, nn.Module) else net)

    return build


class Function(torch.autograd.Function):
    """The identity, without a backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()


class Raising(Function):
    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise KeyError("never written")


class Once(Function):
    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0]


class Through(Net):
    """Passes the hidden numbers through a function of its own."""

    def __init__(self, function: type[Function]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, time: float, known: Tensor) -> Tensor:
        h = self.function.apply(torch.tanh(self.first(x) + known + time))
        return self.last(h + torch.tanh(self.middle(h)))  # type: ignore[no-any-return]


def through(function: type[Function]) -> Callable[[], Subject]:
    return lambda: sampled(made(Through, function))


class Stepping(Net):
    """Computes at every second call, and returns at the others what it computed before."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.kept = 0, torch.empty(0)

    def forward(self, x: Tensor, time: float, known: Tensor) -> Tensor:
        if self.count % 2 == 0:
            self.kept = super().forward(x, time, known)
        self.count += 1
        return self.kept * (1 + time)


def script(net: Net) -> nn.Module:
    return torch.jit.trace(net, (torch.zeros(2, 8), torch.tensor(0.0), torch.zeros(2, INSIDE)))  # type: ignore[no-any-return]


def script_inside(net: Net) -> None:
    net.middle = torch.jit.script(net.middle)


def compile_inside(net: Net) -> None:
    net.middle = torch.compile(net.middle, backend="eager")  # type: ignore[assignment]


def hook(net: Net) -> None:
    HookRegistry.check_if_exists_or_initialize(net.middle).register_hook(ModelHook(), "of the user's own")


class Blocks(ModelMixin, ConfigMixin, CacheMixin):
    """A model of diffusers whose blocks its step caches know."""

    @register_to_config
    def __init__(self) -> None:
        super().__init__()
        self.transformer_blocks = nn.ModuleList(BasicTransformerBlock(WIDTH, 1, WIDTH) for _ in range(2))

    def forward(self, x: Tensor, time: float, known: Tensor) -> Tensor:
        h = x[:, None] + time
        for block in self.transformer_blocks:
            h = block(h)
        return h[:, 0] + known[:, :WIDTH]


def cached(config: Any) -> Callable[[], Subject]:
    def build() -> Subject:
        net = made(Blocks)
        net.enable_cache(config)
        return sampled(net)

    return build


def crowded(most: int) -> Callable[[], Subject]:
    """Memory suffices for `most` conditions in a call."""

    def build() -> Subject:
        subject = sampled(made(Net))

        def run(conditions: Sequence[Tensor], seed: int) -> Tensor:
            if len(conditions) > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return subject.run(conditions, seed)

        return replace(subject, run=run)

    return build


OFFLOAD = "profile --offload-folder FOLDER` keeps weights in files instead"
KEEPS = "gives another output when a call of it is repeated: it keeps something from call to call, such as a step cache"
PAB = PyramidAttentionBroadcastConfig(spatial_attention_block_skip_range=2, current_timestep_callback=lambda: 500)

PATCHED = (
    Odd("compiled", changed(lambda net: torch.compile(net, backend="eager"))),
    Odd("compiled in place", changed(lambda net: net.middle.compile(backend="eager"))),
    Odd("compiled inside", changed(compile_inside), "net.middle is compiled by torch.compile"),
    Odd("traced by torch.jit", changed(script), "net is a module of torch.jit, whose layers cannot be replaced"),
    Odd("scripted inside", changed(script_inside), "net.middle is a module of torch.jit"),
    Odd("a backward that is missing", through(Function), "NotImplementedError: You must implement either"),
    Odd("a backward that is missing, exhaustive", through(Function), error=EXACT, method="exhaustive"),
    Odd("a backward that raises", through(Raising), "a call of Through cannot be differentiated: KeyError: 'never"),
    Odd("a backward that raises, exhaustive", through(Raising), error=EXACT, method="exhaustive"),
    Odd("once differentiable", through(Once)),
    Odd("a step cache of its own", lambda: sampled(made(Stepping)), f"net {KEEPS}"),
    Odd("a step cache of its own, exhaustive", lambda: sampled(made(Stepping)), f"net {KEEPS}", method="exhaustive"),
    Odd("a first-block cache", cached(FirstBlockCacheConfig()), "turn it off first with net.disable_cache()"),
    Odd("a pyramid attention broadcast", cached(PAB), "turn it off first with net.disable_cache()"),
    Odd("an unknown hook", changed(hook), "net.middle has the hook ModelHook of diffusers, which changes how it runs"),
    Odd("no memory for one condition", crowded(0), "seed 0 ran out of memory when it asked for 2.00 GiB more; close"),
    Odd("no memory for all conditions", crowded(2), "odd, called with 4 conditions, the first tensor([-1.52"),
    Odd("no memory for all conditions, exhaustive", crowded(2), "or give a smaller --count", method="exhaustive"),
    Odd("weights on meta", changed(lambda net: net.to("meta")), "6 of 6 tensors of net are on the device meta"),
    Odd("sequential offload", changed(lambda net: cpu_offload(net, CPU)), OFFLOAD),
    Odd("model offload", changed(lambda net: add_hook_to_module(net, CpuOffload(CPU))), OFFLOAD),
    Odd("group offload", changed(lambda net: apply_group_offloading(net, CPU, CPU, "leaf_level")), OFFLOAD),
    Odd("layerwise casting", changed(lambda net: apply_layerwise_casting(net, torch.float8_e4m3fn, torch.float32)),
        "net.first has the hook LayerwiseCastingHook of diffusers, which casts its weights at each call"),
)  # fmt: skip
