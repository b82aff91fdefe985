"""Kernels in order of preference: the table, and the choice from it.

`real` kernels compute with the stored codes; the last line simulates them all and says what is right.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from bitplan.plans.geometry import Geometry
from bitplan.plans.kernels.base import (
    Held,
    Kernel,
    KernelError,
    geometry_of,
)
from bitplan.plans.kernels.cpu.int8 import CPU_INT8
from bitplan.plans.kernels.cpu.weight_only import CPU_WEIGHT_ONLY
from bitplan.plans.kernels.gpu.int8 import GPU_INT8
from bitplan.plans.kernels.gpu.int_mm import GPU_INT_MM
from bitplan.plans.kernels.gpu.weight_only import GPU_WEIGHT_ONLY
from bitplan.plans.kernels.lookup import LOOKUP
from bitplan.plans.kernels.reference import REFERENCE
from bitplan.plans.scheme import Scheme
from bitplan.plans.terms import Table

__all__ = ["KERNELS", "REFERENCE", "Geometry", "Held", "Kernel", "KernelError", "available_kernels", "check_somewhere",
           "choose_kernel", "geometry_of", "register", "unregister"]  # fmt: skip


KERNELS: Table[Kernel] = Table("kernel")
register, unregister = KERNELS.register, KERNELS.unregister

for _kernel in (CPU_INT8, CPU_WEIGHT_ONLY, GPU_INT8, GPU_INT_MM, GPU_WEIGHT_ONLY, LOOKUP, REFERENCE):
    register(_kernel)


def choose_kernel(
    scheme: Scheme,
    kind: str,
    device: torch.device | str = "cpu",
    real_only: bool = True,
    geometry: Geometry | None = None,
) -> Kernel:
    """The first kernel that runs `scheme` on a layer of `kind` (of `bitplan.plans.kinds`) on `device`. Raises
    KernelError with every kernel's reason if none does."""
    reasons = {}
    for kernel in KERNELS.values():
        reason = kernel.supports(scheme, kind, device, geometry)
        reason = reason or ("simulates" if real_only and not kernel.real else None)
        if reason is None:
            return kernel
        reasons[kernel.name] = reason
    raise _none_runs(f"{scheme} on a {kind} layer on {device}", reasons, real_only)


def check_somewhere(scheme: Scheme, kind: str, geometry: Geometry | None = None) -> None:
    """Raises KernelError with every reason if no real kernel runs `scheme` on a layer of `kind`, on whatever device."""
    real = [kernel for kernel in KERNELS.values() if kernel.real]
    reasons = {kernel.name: kernel.refuses(scheme, kind, geometry) for kernel in real}
    if all(reasons.values()):
        raise _none_runs(f"{scheme} on a {kind} layer on any device", reasons, True)


def _none_runs(what: str, reasons: Mapping[str, str | None], real_only: bool) -> KernelError:
    why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    simulating = ", or simulate it, as `bitplan apply --kernels fake` does" if real_only else ""
    return KernelError(f"no kernel runs {what} ({why}); take another scheme{simulating}")


def available_kernels(device: torch.device | str = "cpu") -> dict[str, str | None]:
    """For each kernel None, or why it does not run on `device`."""
    return {kernel.name: kernel.available(torch.device(device)) for kernel in KERNELS.values()}
