"""A plan is bound to a pipeline once: each step runs once for an `apply`, and attentions are closed after errors."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import nn

import bitplan
from bitplan.planner.applied import binding
from bitplan.planner.choice.published import plan_in
from bitplan.planner.graph import fingerprint, trace
from bitplan.planner.graph.layers import architecture_fingerprint
from bitplan.planner.pipelines.sources import load_pipeline
from bitplan.plans import scheme
from bitplan.plans.layers import opening
from bitplan.plans.layers.attention import Attention
from bitplan.plans.layers.swap import SwapError, undo
from bitplan.plans.plan import Plan, PlanError

COUNTED = {
    scheme: ("parse_scheme",),
    opening: ("open_all", "opened", "closed_in"),
    trace: ("list_layers", "survey"),
    fingerprint: ("fingerprint", "fingerprint_of"),
}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    counts: Counter[str] = Counter()

    def counted(name, function):
        def run(*args, **kwargs):
            counts[name] += 1
            return function(*args, **kwargs)

        return run

    for module, names in COUNTED.items():
        for name in names:
            function, wrapper = getattr(module, name), counted(name, getattr(module, name))
            for user in [m for n, m in sys.modules.items() if n.startswith("bitplan.")]:
                if vars(user).get(name) is function:
                    monkeypatch.setattr(user, name, wrapper)
    return counts


def test_apply_does_each_step_once(calls: Counter[str]) -> None:
    pipe, plan = load_pipeline("scenes"), plan_in("scenes@12%")
    calls.clear()
    bitplan.apply(pipe, replace(plan))
    assert calls == {
        "parse_scheme": len(set(plan.schemes.values())), "open_all": 1, "closed_in": 1, "list_layers": 1,
        "fingerprint_of": 1,
    }  # fmt: skip
    bitplan.restore(pipe)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.MultiheadAttention(8, 2, batch_first=True) for _ in range(2))
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1)


def plan_of(parts: dict[str, nn.Module], schemes: dict[str, str]) -> Plan:
    graph = trace.survey(parts, schemes)
    model = {"name": "net", "fingerprint": fingerprint.fingerprint(parts, graph), "components": list(parts)}
    return Plan(model | {"architecture": architecture_fingerprint(graph)}, schemes)


def classes(parts: dict[str, nn.Module]) -> list[type]:
    return [type(module) for root in parts.values() for module in root.modules()]


def test_only_the_attentions_of_packed_layers_stay_open() -> None:
    torch.manual_seed(0)
    parts = {"net": Net()}
    before, weight = classes(parts), parts["net"].second.in_proj_weight
    plan = plan_of(parts, {"net.first.q_proj": "w8a16", "net.second.q_proj": "keep"})
    swapped = binding.bind_and_swap(plan, parts, True, False, True)
    assert isinstance(parts["net"].first, Attention)
    assert type(parts["net"].second) is nn.MultiheadAttention and parts["net"].second.in_proj_weight is weight
    assert type(parts["net"].encoder) is nn.TransformerEncoder
    undo(swapped)
    assert classes(parts) == before


@pytest.mark.parametrize("wrong", ["layer", "weights", "scheme"])
def test_all_is_closed_after_an_error(wrong: str) -> None:
    torch.manual_seed(0)
    parts = {"net": Net()}
    before = classes(parts)
    plan = plan_of(parts, {"net.first.q_proj": "w8a16"})
    if wrong == "layer":
        plan = replace(plan, schemes={"net.third.q_proj": "w8a16"})
    if wrong == "weights":
        plan = replace(plan, model=dict(plan.model) | {"fingerprint": "0" * 64})
    if wrong == "scheme":
        plan = replace(plan, schemes={"net.first.q_proj": "w8sa8"})
    with pytest.raises((PlanError, SwapError, ValueError)):
        binding.bind_and_swap(plan, parts, True, False, True)
    assert classes(parts) == before
