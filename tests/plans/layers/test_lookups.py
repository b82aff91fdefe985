"""The weight of a packed layer can be looked up in the state dict of its model, which does not contain it."""

from __future__ import annotations

import copy
import io
from collections import OrderedDict

import pytest
import torch
from torch import nn

from bitplan.plans.layers.lookups import answer_weights, stop_answering
from bitplan.plans.layers.swap import swap
from bitplan.plans.scheme import parse_scheme


def packed() -> nn.Module:
    torch.manual_seed(0)
    model = nn.ModuleDict({"a": nn.Sequential(nn.Linear(8, 4)), "b": nn.Linear(4, 2)})
    swap({"m": model}, {"m.a.0": parse_scheme("w8a8")})
    return model


def test_a_weight_is_looked_up_and_not_contained() -> None:
    model = packed()
    plain = model.state_dict()
    answer_weights(model)
    answer_weights(model)
    found = model.state_dict()
    assert list(found) == list(plain) and len(model._state_dict_hooks) == 1
    assert torch.equal(found["a.0.weight"], model["a"][0].weight) and found["a.0.weight"].shape == (4, 8)
    assert "a.0.weight" not in found and found.get("a.0.weight") is None and list(found) == list(plain)
    assert model.load_state_dict(found).missing_keys == []
    for absent in ("a.weight", "a.1.weight", "c.weight", "a.0.codes2", "weight", "b"):
        with pytest.raises(KeyError, match=absent):
            _ = found[absent]
    stop_answering(model)
    assert type(model.state_dict()) is OrderedDict


def test_copies_and_files_hold_a_plain_state_dict() -> None:
    model = packed()
    answer_weights(model)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    for other in (torch.load(file, weights_only=True), copy.deepcopy(model.state_dict())):
        assert type(other) is OrderedDict and list(other) == list(model.state_dict())
        assert other._metadata == model.state_dict()._metadata
    with pytest.raises(KeyError):
        _ = model.state_dict().copy()["a.0.weight"]
    with pytest.raises(KeyError):
        _ = nn.ModuleDict({"whole": model}).state_dict()["whole.a.0.weight"]


def test_a_copy_of_the_model_answers_for_itself() -> None:
    model = packed()
    answer_weights(model)
    twin = copy.deepcopy(model)
    twin["a"][0].scale.data.mul_(2)
    assert torch.equal(twin.state_dict()["a.0.weight"], 2 * model.state_dict()["a.0.weight"])
