"""A kernel: ternary weights of linear layers on the CPU, with the toy transform."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from bitplan.plans.kernels.base import Held, Kernel, on_cpu
from bitplan.plans.numerics import transformed_input
from bitplan.plans.takes import Takes


@torch.no_grad()
def run(x: Tensor, layer: Held) -> Tensor:
    signs, size = layer.packed.tensors["signs"], layer.packed.tensors["size"]
    product = linear(transformed_input(x, layer.kind, layer.scheme, layer.fitted), signs.to(x.dtype))
    scaled = product * size.view(-1).to(x.dtype)
    return scaled if layer.bias is None else scaled + layer.bias.to(x.dtype)


TERNARY_PRODUCT = Kernel(
    "toy_product", "signs times inputs", True, Takes({"ternary": {}}, {"float": {}}, ("even",)), on_cpu, run,
    kinds=("linear",),
)  # fmt: skip
