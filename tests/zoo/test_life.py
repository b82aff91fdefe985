"""Every pipeline of the zoo keeps what happens to it between apply and restore."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import bitplan
from bitplan.plans.layers.modules import is_packed
from tests.packed import plan_for
from tests.zoo import ZOO

torch.set_num_threads(1)


def weights_of(model: Any) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("name", ZOO)
def test_casts_gradients_and_attributes_are_followed(name: str) -> None:
    animal = ZOO[name]
    pipe = animal.build()
    models = [getattr(pipe, component) for component in animal.iterates]
    before = [weights_of(model) for model in models]
    for model in models:
        model.config.note_of_a_test = "set before"
    bitplan.apply(pipe, plan_for(pipe, animal.iterates, ("w8a16", "keep")), kernels="fake")
    for model in models:
        packed = [layer for layer in model.modules() if is_packed(layer)]
        assert packed and all(next(layer.parameters()).dtype == torch.float32 for layer in packed)
        model.to(torch.bfloat16).requires_grad_(False)
        assert all(next(layer.parameters()).dtype == torch.bfloat16 for layer in packed)
        assert model.config.note_of_a_test == "set before"
        model.config.note_of_a_test = "set after"
    bitplan.restore(pipe)
    for model, old in zip(models, before, strict=True):
        assert model.config.note_of_a_test == "set after"
        assert not any(is_packed(layer) for layer in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())
        now = model.state_dict()
        assert now.keys() == old.keys()
        assert all(torch.equal(now[key], tensor.to(now[key].dtype)) for key, tensor in old.items())
        kept = set(getattr(model, "_keep_in_fp32_modules", None) or ())
        assert kept or all(tensor.dtype == torch.bfloat16 for tensor in now.values() if tensor.is_floating_point())
