"""The whole story of a model with nn.MultiheadAttention: traced, profiled, solved, applied, restored, saved, loaded."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import SiglipVisionConfig, SiglipVisionModel

import bitplan
from bitplan.planner.choice.joint import predict_plan
from bitplan.planner.errors import UserError
from bitplan.planner.finetunes.check import settings_of
from bitplan.planner.graph.bypass import REASON as PAST
from bitplan.planner.graph.layers import from_json, to_json
from bitplan.planner.graph.trace import find_layers, survey, trace
from bitplan.planner.measurement.jobs import Job
from bitplan.planner.measurement.methods import run_job
from bitplan.planner.measurement.run import setup_of
from bitplan.planner.measurement.worker import open_worker
from bitplan.planner.pipelines.references import typed
from bitplan.planner.pipelines.subject import Subject, run_subject
from bitplan.planner.pipelines.traced import examine
from bitplan.planner.profiles.profile import open_profile
from bitplan.plans.kernels import KernelError
from bitplan.plans.layers.attention import Attention
from bitplan.plans.layers.guards import ReadOnly
from bitplan.plans.plan import Plan, PlanError
from bitplan.sensitivity.calibration.ranges import ActivationRange
from tests.attending import Attending, build, inputs, made
from tests.packed import plan_for, same

torch.set_num_threads(1)
SCHEMES = ("w8a8", "w4a8", "w3a8", "w8a8t")
ATTENTIONS = ("net.cross", "net.plain", "net.enc.layers.0.self_attn")
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")


@pytest.fixture(scope="module")
def profiles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("attending")
    return {
        method: bitplan.profile(
            made(), folder / f"{method}.profile", schemes=SCHEMES, count=4, timesteps=3, checks=0, method=method,
            probes=16,
        )
        for method in ("probes", "exhaustive")
    }  # fmt: skip


@pytest.fixture(scope="module")
def planned(profiles: dict[str, Path]) -> Plan:
    return bitplan.solve(
        profiles["probes"], profiles["probes"].with_suffix(".yaml"), memory="40%", objective="quality",
        pins={"net.plain.k_proj": "keep"},
    )  # fmt: skip


def test_the_graph() -> None:
    net = build()
    graph = trace({"net": net}, lambda: net(*inputs()))
    assert graph.reasons == () and graph.unused == () and graph.tied == ()
    roles = {name.removeprefix("net."): layer.role for name, layer in graph.by_address.items()}
    assert {roles[f"cross.{name}"] for name in PROJECTIONS} == {"cross-attention"}
    own = {roles[f"{where}.{name}"] for where in ("plain", "enc.layers.0.self_attn") for name in PROJECTIONS}
    assert own == {"self-attention"} and (roles["inp"], roles["out"]) == ("in", "out")
    shared = {tuple(name.removeprefix("net.") for name in names) for names in graph.shared_inputs}
    assert shared == {("cross.k_proj", "cross.v_proj"), *(
        tuple(f"{where}.{name}" for name in PROJECTIONS[:3]) for where in ("plain", "enc.layers.0.self_attn")
    )}  # fmt: skip
    layer = graph.by_address["net.plain.k_proj"]
    assert (layer.weight, layer.parameters, layer.macs) == ((16, 16), 16 * 17, 2 * 4 * 16 * 16)
    assert layer.calls[0].input == (2, 4, 16)  # samples first, whatever the model has
    assert graph.by_address["net.cross.k_proj"].weight == (16, 12)
    held = {name.removeprefix("net."): layer.held for name, layer in graph.by_address.items() if layer.held}
    assert held["plain.v_proj"] == "net.plain.in_proj_weight" and held["cross.v_proj"] == "net.cross.v_proj_weight"
    assert held["plain.out_proj"] == "net.plain.out_proj.weight" and len(held) == 12
    assert from_json(to_json(graph)) == graph and "held" not in to_json(graph)["layers"][0]
    told = survey({"net": net}, find_layers({"net": net}))
    assert {one.address: one.held for one in told.layers} == {one.address: one.held for one in graph.layers}
    assert all(type(net.get_submodule(name.removeprefix("net."))) is nn.MultiheadAttention for name in ATTENTIONS)


def test_weights_that_others_read_stay_unplanned() -> None:
    """As models do that call the function of torch themselves."""
    net, x = nn.ModuleDict({"attn": nn.MultiheadAttention(8, 2), "last": nn.Linear(8, 8)}), torch.randn(3, 2, 8)

    def run() -> Tensor:
        return net["last"](net["attn"](x, x, x)[0] @ net["attn"].in_proj_weight[:8])

    graph = trace({"net": net}, run)
    assert set(graph.by_address) == {"net.attn.out_proj", "net.last"}
    assert dict(graph.reasons) == dict.fromkeys((f"net.attn.{name}" for name in PROJECTIONS[:3]), PAST)


def test_probes_are_near_what_is_measured(profiles: dict[str, Path]) -> None:
    with open_profile(profiles["probes"]) as probed, open_profile(profiles["exhaustive"]) as measured:
        near, told = ({(m.layer, m.scheme): m.mean for m in store.measurements() if m.metric == "nsr"}
                      for store in (probed, measured))  # fmt: skip
        assert near.keys() == told.keys() and len(near) == 16 * len(SCHEMES)
        costs = {cost.layer for cost in probed.costs()}
    assert all(f"{where}.{name}" in costs for where in ATTENTIONS for name in PROJECTIONS)
    ratios = torch.tensor([near[pair] / told[pair] for pair in near]).log().abs()
    assert float(ratios.median()) < 0.5
    shown = str(bitplan.inspect(profiles["probes"]))
    assert "16 layers" in shown and "not planned" not in shown


def test_a_model_is_as_it_was_after_each_verb(profiles: dict[str, Path], planned: Plan, tmp_path: Path) -> None:
    subject = made()
    net: Any = subject.modules["net"]
    before = copy.deepcopy(net.state_dict())
    modules, weights = (
        {name: id(one) for name, one in pairs} for pairs in (net.named_modules(), net.named_parameters())
    )
    full = run_subject(subject, subject.conditions, 0)
    outputs = []
    for kernels in ("fake", "int"):
        bitplan.apply(subject, planned, kernels=kernels)
        assert type(net.plain) is Attention and not torch.equal(run_subject(subject, subject.conditions, 0), full)
        outputs.append(run_subject(subject, subject.conditions, 0))
        assert bitplan.restore(subject) is subject
        assert torch.equal(run_subject(subject, subject.conditions, 0), full)
    torch.testing.assert_close(*outputs, rtol=1e-3, atol=1e-3)
    found = bitplan.evaluate([profiles["probes"].with_suffix(".yaml")], subject, tmp_path / "report", count=4)
    predicted, measured = planned.predictions["total"]["nsr"], found.results[1].losses["nsr"][0]
    assert 0.3 < predicted / measured < 3 and found.results[1].bytes == planned.predictions["total"]["bytes"]
    assert predict_plan_total(planned, profiles["probes"]) > 0
    assert bitplan.verify(planned, profiles["probes"]).failures == ()
    assert {name: id(one) for name, one in net.named_modules()} == modules
    assert {name: id(one) for name, one in net.named_parameters()} == weights
    assert list(net.state_dict()) == list(before)
    assert all(torch.equal(now, before[name]) for name, now in net.state_dict().items())


def predict_plan_total(plan: Plan, profile: Path) -> float:
    with open_profile(profile) as store:
        return predict_plan(plan, store)["nsr"].joint


def test_a_fine_tune_is_checked_and_other_weights_are_refused(profiles: dict[str, Path], planned: Plan) -> None:
    net = build()
    with torch.no_grad():
        net.plain.in_proj_weight[40] *= 1.01
    with pytest.raises(PlanError, match="fingerprint"):
        bitplan.apply(made(net), planned)
    assert bitplan.check(profiles["exhaustive"], made(net), sample=8).compared
    assert type(net.plain) is nn.MultiheadAttention


def plan_of(net: Attending) -> Plan:
    """Half-packed attentions, and one that is kept as a whole."""
    plan = plan_for(type("Pipe", (), {"net": net}), ["net"], (*SCHEMES[:2], "keep", *SCHEMES[2:]))
    kept = {name: "keep" if name.startswith("net.cross") else text for name, text in plan.schemes.items()}
    assert {"keep", "w8a8"} < {text for name, text in kept.items() if ".plain." in name}
    return replace(plan, schemes=kept)


@pytest.fixture
def packed(tmp_path: Path) -> tuple[Plan, Attending, Tensor]:
    """The float model is saved in `float` and `shards`, the packed one in `packed`."""
    net = build()
    plan = plan_of(net)
    net.save_pretrained(tmp_path / "float")
    net.save_pretrained(tmp_path / "shards", max_shard_size="2KB")
    bitplan.apply(made(net), plan)
    net.save_pretrained(tmp_path / "packed")
    with torch.no_grad():
        return plan, net, net(*inputs())


@torch.no_grad()
def test_saved_packed_and_loaded(packed: tuple[Plan, Attending, Tensor], tmp_path: Path) -> None:
    _, net, out = packed
    again = Attending.from_pretrained(tmp_path / "packed")
    assert torch.equal(again(*inputs()), out) and same(again.state_dict(), net.state_dict())
    assert type(again.cross) is nn.MultiheadAttention and type(again.plain) is Attention
    assert "cross.q_proj_weight" in again.state_dict() and "plain.q_proj.codes" in again.state_dict()
    assert torch.equal(copy.deepcopy(again)(*inputs()), out)
    assert torch.equal(torch.compile(again, fullgraph=True, backend="aot_eager")(*inputs()), out)
    with pytest.raises(UserError, match="float weights were never here"):
        bitplan.restore(made(again))


@torch.no_grad()
@pytest.mark.parametrize("folder", ["float", "shards"])
def test_packed_while_it_is_loaded(folder: str, packed: tuple[Plan, Attending, Tensor], tmp_path: Path) -> None:
    plan, net, out = packed
    made = Attending.from_pretrained(tmp_path / folder, quantization_config=bitplan.config(plan, "net"))
    assert torch.equal(made(*inputs()), out) and same(made.state_dict(), net.state_dict())
    assert all(w.untyped_storage().nbytes() == w.nbytes for w in made.parameters())


def test_writing_to_the_weights_of_an_open_attention_is_refused(packed: tuple[Plan, Attending, Tensor]) -> None:
    _, net, _ = packed
    assert isinstance(net.plain.in_proj_weight, ReadOnly) and net.cross.in_proj_weight is None
    with pytest.raises(KernelError, match="cannot be written to"):
        net.plain.in_proj_weight.add_(1)


def test_other_tools_are_told_that_they_cannot(profiles: dict[str, Path], planned: Plan, tmp_path: Path) -> None:
    plan = replace(planned, schemes=dict.fromkeys(planned.schemes, "w8a16"))
    for model in (str(profiles["probes"]),):
        with pytest.raises(UserError, match=r"12 of 16 layers: 12, the first net.cross.q_proj.*nn.MultiheadAttention"):
            bitplan.export(plan, "torchao", tmp_path / "x.json", model=model)
        bitplan.export(plan, "gguf-recipe", tmp_path / "x.txt", model=model, approximate=True)
    lines = (tmp_path / "x.txt").read_text().splitlines()
    assert sum("in_proj_weight" in line for line in lines) == 2 and sum("out_proj" in line for line in lines) == 3
    assert sum(line.endswith("=f16") for line in lines) >= 8


def test_a_worker_opens_its_own(profiles: dict[str, Path]) -> None:
    """As another process does that is told no more than the subject's name."""
    with open_profile(profiles["exhaustive"]) as store:
        told = {m.scheme: m.mean for m in store.measurements() if (m.layer, m.metric) == ("net.plain.q_proj", "nsr")}
        settings = replace(settings_of(store), pipeline=typed("tests.attending:made"))
        ranges = {layer: ActivationRange(**seen) for layer, seen in store.ranges().items()}
    subject = made()
    traced = examine(subject, subject.conditions, 0, ("net",))
    worker = open_worker(setup_of(traced, settings, ranges))
    pairs = (("net.plain.q_proj", "w4a8"), ("net.plain.q_proj", "w3a8"))
    found = [m for one in run_job(worker, Job("exhaustive", pairs)) for m in one.measurements if m.metric == "nsr"]
    assert {m.scheme: m.mean for m in found} == pytest.approx({scheme: told[scheme] for _, scheme in pairs}, rel=1e-3)


@torch.no_grad()
def test_a_model_of_transformers(tmp_path: Path) -> None:
    """Its pooling head attends with one query that is a parameter."""
    torch.manual_seed(0)
    config = SiglipVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8
    )
    model, x = SiglipVisionModel(config).eval(), torch.randn(1, 3, 16, 16)
    parts = {"image_encoder": model}
    graph = trace(parts, lambda: model(x))
    heads = [name for name in graph.by_address if name.rpartition(".")[0].endswith("head.attention")]
    assert len(heads) == 4
    plan = plan_for(type("Pipe", (), parts), ["image_encoder"], ("w8a8", "w4a16", "w3a8"))
    subject = Subject(parts, lambda conditions, seed: model(x).pooler_output, [0], "array")
    bitplan.apply(subject, plan)
    out = model(x).pooler_output
    model.save_pretrained(tmp_path)
    again = SiglipVisionModel.from_pretrained(tmp_path)
    assert torch.equal(again(x).pooler_output, out) and same(again.state_dict(), model.state_dict())
    bitplan.restore(subject)
