"""Chooses the way to multiply int8 codes that this processor is good at, once in a process."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch.utils._python_dispatch import _disable_current_modes

from bitplan.plans.kernels.cpu.paths import DEPTH, FLOAT_BLOCKS, INT_MM, ProductPath

MARGIN = 1.5  # how many times faster a path must be to be chosen against what the processor's features suggest
_SHAPE = (64, 512, 256)  # M, K, N of the product that is timed: 8 million multiplications
_REPEATS = 3


@dataclass(frozen=True)
class Processor:
    """What the choice depends on.

    Attributes:
        features: those of VNNI and AMX that the processor has.
        is_exact: tells whether a path's sums are exact here.
        seconds: times one product on a path, or in plain float32 for None.
    """

    features: tuple[str, ...]
    is_exact: Callable[[ProductPath], bool]
    seconds: Callable[[ProductPath | None], float]


@dataclass(frozen=True)
class PathChoice:
    """The chosen path.

    Attributes:
        path: its name in `PATHS`.
        speed: float32's time for a product over the path's time.
        reason: why this path, in words.
    """

    path: str
    speed: float
    reason: str

    def __str__(self) -> str:
        return f"int8 products: {self.speed:.1f}x float32 ({self.path}; {self.reason})"


def choose_path(processor: Processor) -> PathChoice:
    """Choose the path that the processor's features suggest, unless it is inexact here or another is `MARGIN` times
    faster."""
    float32, reason = processor.seconds(None), " and ".join(processor.features) or "no VNNI or AMX"
    if not processor.is_exact(INT_MM):
        reason = f"{reason}, but torch's int8 products are wrong here"
        return PathChoice(FLOAT_BLOCKS.name, float32 / processor.seconds(FLOAT_BLOCKS), reason)
    path, other = (INT_MM, FLOAT_BLOCKS) if processor.features else (FLOAT_BLOCKS, INT_MM)
    seconds, others = processor.seconds(path), processor.seconds(other)
    if others * MARGIN < seconds:
        reason = f"{reason}, but {seconds / others:.1f}x {path.name}"
        path, seconds = other, others
    return PathChoice(path.name, float32 / seconds, reason)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def chosen_path() -> str:
    """The name of this processor's path. A compiler calls it while it traces, and sees a constant."""
    return path_choice().path


@cache
def path_choice() -> PathChoice:
    """The choice for this processor, by real products even where torch is exporting a model."""
    with _disable_current_modes():
        return choose_path(Processor(_features(), is_exact, seconds_of))


def _features() -> tuple[str, ...]:
    """Older versions of torch may lack a test; the timing decides then."""
    tests = {"VNNI": "_is_vnni_supported", "AMX": "_is_amx_tile_supported"}
    return tuple(name for name, test in tests.items() if getattr(torch.cpu, test, bool)())


def is_exact(path: ProductPath) -> bool:
    """Whether sums of the largest codes are right. oneDNN's are not without VNNI: they saturate in 16 bits. torch does
    not use it there, but does where a VNNI processor is restricted by ONEDNN_MAX_CPU_ISA."""
    sizes = (
        torch.arange(size * DEPTH, dtype=torch.int64, device="cpu").view(size, DEPTH) % 28 + 100 for size in (5, 9)
    )
    left, right = (
        size * (-1) ** torch.arange(len(size), dtype=torch.int64, device="cpu").view(-1, 1) for size in sizes
    )
    operands = [path.operand(codes.to(torch.int8)) for codes in (left, right)]
    return torch.equal(path.product(operands[0], operands[1].t()).long(), left @ right.t())


@torch.no_grad()
def seconds_of(path: ProductPath | None) -> float:
    """The fastest of a few products, its weight's conversion included."""
    rows, depth, outputs = _SHAPE
    left, right = (torch.ones(size, depth, dtype=torch.int8, device="cpu") for size in (rows, outputs))
    if path is None:
        wide = left.float(), right.float()
        return _fastest(lambda: torch.mm(wide[0], wide[1].t()))
    operand = path.operand(left)
    return _fastest(lambda: path.product(operand, path.operand(right).t()))


def _fastest(run: Callable[[], object]) -> float:
    run()
    return min(_clocked(run) for _ in range(_REPEATS))


def _clocked(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
