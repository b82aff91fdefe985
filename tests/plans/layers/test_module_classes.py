"""Which classes of modules are layers and which are not: subclasses, the Conv1D of transformers, old LoRA layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bitplan.plans.kernels import REFERENCE, KernelError
from bitplan.plans.layers.modules import (
    kind_of,
    quantize_module,
    refusal_of,
)
from bitplan.plans.scheme import parse_scheme

torch.set_num_threads(1)


class Shifted(nn.Conv3d):
    """As causal convolutions of video autoencoders are made."""

    def forward(self, input):
        return super().forward(nn.functional.pad(input, (0, 0, 0, 0, 2, 0)))


class Named(nn.Conv1d):
    """Adds nothing to what is computed."""

    label = "mine"


def test_a_subclass_is_a_layer_where_it_runs_as_its_class_does():
    assert kind_of(Named(2, 2, 1)) == "conv1d" and refusal_of(Named(2, 2, 1)) is None
    assert kind_of(nn.modules.linear.NonDynamicallyQuantizableLinear(2, 2)) == "linear"
    for module, why in (
        (Shifted(2, 2, 3), "Shifted has a forward of its own"),
        (nn.Embedding(4, 2, max_norm=1.0), "max_norm"),
        (nn.Embedding(4, 2, sparse=True), "sparse"),
        (nn.utils.parametrizations.weight_norm(nn.Conv1d(2, 2, 3)), "computed anew"),
    ):
        assert kind_of(module) is None and why in refusal_of(module)
        with pytest.raises(KernelError, match=why):
            quantize_module(module, parse_scheme("w8a16"), REFERENCE)
    for other in (
        nn.ConvTranspose1d(2, 2, 3),
        nn.ConvTranspose3d(2, 2, 3),
        nn.Bilinear(2, 2, 2),
        nn.EmbeddingBag(4, 2),
    ):
        assert kind_of(other) is None and refusal_of(other) is None


def test_what_transformers_calls_conv1d_is_none():
    from transformers.pytorch_utils import Conv1D

    assert kind_of(Conv1D(2, 3)) is None and refusal_of(Conv1D(2, 3)) is None


def test_the_old_lora_layers_of_diffusers_have_a_forward_of_their_own():
    from diffusers.models.lora import LoRACompatibleConv, LoRACompatibleLinear

    for module in (LoRACompatibleConv(2, 2, 1), LoRACompatibleLinear(2, 2)):
        assert kind_of(module) is None and "forward of its own" in refusal_of(module)
