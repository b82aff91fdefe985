"""A kernel computes from what its input holds at the call, however that was written and whatever ran before."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bitplan.plans.kernels import KERNELS, Kernel
from bitplan.plans.layers.modules import quantize_module
from bitplan.plans.numerics import range_tensor
from bitplan.plans.scheme import EXAMPLES, parse_scheme

RANGES = range_tensor({"tensor": 5.0, "first": 5.0})
CASES = [
    pytest.param(kernel, scheme, id=f"{kernel.name}-{scheme}")
    for kernel in KERNELS.values()
    for scheme in map(parse_scheme, EXAMPLES)
    if str(scheme) != "keep" and kernel.supports(scheme, "linear", "cpu") is None
]


def by_thread(x: Tensor) -> None:
    writer = threading.Thread(target=lambda: x.data.mul_(-3))
    writer.start()
    writer.join()


WRITES: dict[str, Callable[[Tensor], object]] = {
    "in place": lambda x: x.mul_(-3),
    "a view": lambda x: x[0].mul_(-3),
    "numpy": lambda x: x.numpy().__imul__(-3),
    ".data": lambda x: x.data.mul_(-3),
    "DLPack": lambda x: torch.from_dlpack(x.__dlpack__()).mul_(-3),
    "storage": lambda x: x.untyped_storage().copy_(torch.arange(float(x.numel())).untyped_storage()),
    "a fused optimizer": lambda x: torch._fused_sgd_(
        [x], [torch.ones_like(x)], [], weight_decay=0.0, momentum=0.0, lr=3.0, dampening=0.0, nesterov=False,
        maximize=False, is_first_step=True,
    ),
    "a thread": by_thread,
}  # fmt: skip


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize(("kernel", "scheme"), CASES)
def test_an_input_that_was_written_to_gives_a_new_output(
    kernel: Kernel, scheme, write: Callable[[Tensor], object]
) -> None:
    layer, x = quantize_module(nn.Linear(6, 4), scheme, kernel, RANGES), torch.randn(2, 3, 6)
    before = layer(x)
    write(x)
    after = layer(x)
    assert torch.equal(after, layer(x.clone()))
    assert not torch.equal(after, before)
