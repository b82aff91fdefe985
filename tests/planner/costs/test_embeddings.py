"""Embedding layers round no input: of the default schemes, which all round inputs, they take the weights alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

import bitplan
from bitplan.planner.choice.evidence import read_evidence
from bitplan.planner.profiles.profile import open_profile
from bitplan.plans.scheme import parse_scheme

EMBEDDING, LINEAR = "net.table", "net.mix"
DEFAULTS = {"w8a16", "w6a16", "w5ma16", "w4ma16", "w3ma16", "w2ma16"}


class Net(nn.Module):
    """A class is looked up and mixed with the state."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.mix = nn.Embedding(40, 64), nn.Linear(64, 64)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return torch.tanh(self.mix(x + self.table(label)))


def made() -> bitplan.Subject:
    torch.manual_seed(0)
    net = Net().eval()

    def run(conditions: Sequence[int], seed: int) -> Tensor:
        labels = torch.tensor(list(conditions))
        x = torch.zeros(len(labels), 64)
        for _ in range(2):
            x = net(x, labels)
        return x

    return bitplan.Subject({"net": net}, run, conditions=(1, 2, 3, 4), metrics=("nsr",))


def test_the_default_menu_quantizes_embeddings_for_real(tmp_path: Path) -> None:
    out = bitplan.profile(made(), tmp_path / "p.profile", checks=1, probes=1, count=4)
    with open_profile(out) as store:
        evidence, kernels = read_evidence(store), {(c.layer, c.scheme): c.kernel for c in store.costs()}
        assert set(evidence.offered[EMBEDDING]) == {"keep", *DEFAULTS}
        assert all(parse_scheme(s).inputs.kind != "float" for s in evidence.offered[LINEAR] if s != "keep")
        assert {kernels[EMBEDDING, scheme] for scheme in DEFAULTS} == {"lookup"}
        assert all(evidence.losses.measurement(EMBEDDING, scheme, "nsr").mean > 0 for scheme in DEFAULTS)
    plan = bitplan.solve(out, tmp_path / "p.plan.yaml", memory="12%", objective="nsr")
    assert plan.schemes[EMBEDDING] in DEFAULTS
    assert not bitplan.verify(tmp_path / "p.plan.yaml", out).failures
    again = bitplan.profile(made(), out, checks=1, probes=1, count=4)  # continued: nothing is left to do
    assert again == out
    uniform = bitplan.solve(out, tmp_path / "u.plan.yaml", uniform="w8a8")
    assert uniform.schemes == {EMBEDDING: "w8a16", LINEAR: "w8a8"}
