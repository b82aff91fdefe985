"""Compiled and exported layers have one graph for all batch sizes, as docs/compatibility.md says."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from diffusers import ModelMixin
from torch import Tensor, nn

import bitplan
from bitplan.planner.applied import regional
from bitplan.planner.errors import UserError
from bitplan.planner.pipelines.subject import run_subject
from bitplan.plans.formats import FORMATS
from bitplan.plans.inputs import INPUTS
from bitplan.plans.kernels import REFERENCE, choose_kernel
from bitplan.plans.kernels.cpu import int8
from bitplan.plans.layers.modules import quantize_module
from bitplan.plans.numerics import range_tensor
from bitplan.plans.scheme import parse_scheme
from bitplan.plans.transforms import TRANSFORMS
from tests.odd.parts import made as made_net
from tests.odd.parts import sampled
from tests.odd.patched import Blocks as Attentions
from tests.planner.applied.test_binding import plan_of

BATCHES = (5, 2, 9, 4)  # equal to no other size: torch takes equal sizes for one
LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(64, 3), (7, 64)),
    "conv2d": (lambda: nn.Conv2d(8, 3, 3, padding=1, stride=2), (8, 6, 7)),
    "conv3d": (lambda: nn.Conv3d(8, 3, 3, padding=1), (8, 3, 6, 7)),
    "embedding": (lambda: nn.Embedding(11, 8), (7,)),
}
RANGES = range_tensor({"tensor": 2.5, "first": 3.0})
CASES = [("linear", "w8a8", "int_mm"), ("linear", "w4g64za8t", "float_blocks"), ("linear", "w8a8t+first", "int_mm"),
         ("linear", "w8a16", "int_mm"), ("conv2d", "w8a8", "float_blocks"), ("conv2d", "w4g64za8t", "int_mm"),
         ("conv3d", "w8a8", "int_mm"), ("embedding", "w4a16", "int_mm")]  # fmt: skip


class Graphs:
    """A compiler that changes nothing and counts."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.count += 1
        return graph


@pytest.fixture(autouse=True)
def fresh() -> None:
    torch._dynamo.reset()


def made(kind: str, text: str, path: str, patch: pytest.MonkeyPatch) -> tuple[nn.Module, list[Tensor]]:
    """A packed layer whose products take `path`, and its inputs, in bfloat16 for the kernel that knows few rows."""
    patch.setattr(int8, "chosen_path", torch.compiler.assume_constant_result(lambda: path))
    torch.manual_seed(0)
    (make, shape), scheme = LAYERS[kind], parse_scheme(text)
    layer = quantize_module(make(), scheme, choose_kernel(scheme, kind), RANGES)
    rows = [torch.randint(0, 11, (n, *shape)) if kind == "embedding" else torch.randn(n, *shape) for n in BATCHES]
    return layer, [x.bfloat16() if kind == "linear" and text == "w8a16" else x for x in rows]


def check_same(found: Tensor, expected: Tensor) -> None:
    """To the bit; in bfloat16, where few rows have a product of their own in eager code alone, to its last digits."""
    close = {"rtol": 0.02, "atol": 0.01} if found.dtype == torch.bfloat16 else {"rtol": 0, "atol": 0}
    torch.testing.assert_close(found, expected, **close)


@pytest.mark.parametrize(("kind", "text", "path"), CASES)
def test_one_graph_serves_all_batch_sizes(kind: str, text: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, rows = made(kind, text, path, monkeypatch)
    graphs = Graphs()
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend=graphs)
    with torch.no_grad():
        for x in rows:
            check_same(compiled(x), layer(x))
    assert graphs.count == 1


@pytest.mark.parametrize(("kind", "text"), [("linear", "w8a8"), ("conv2d", "w8a8")])
def test_a_second_graph_is_made_once_sizes_differ(kind: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With dynamic=None, torch's default."""
    layer, rows = made(kind, text, "int_mm", monkeypatch)
    graphs = Graphs()
    compiled = torch.compile(layer, fullgraph=True, backend=graphs)
    with torch.no_grad():
        for x in rows:
            check_same(compiled(x), layer(x))
    assert graphs.count == 2


@pytest.mark.parametrize(("kind", "text", "path"), CASES)
def test_torch_export_with_a_dynamic_batch(kind: str, text: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, rows = made(kind, text, path, monkeypatch)
    with torch.no_grad():
        shapes = ({0: torch.export.Dim("batch")},)
        exported = torch.export.export(layer, (rows[0],), dynamic_shapes=shapes).module()
        for x in rows:
            check_same(exported(x), layer(x))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layer(x)


class Blocks(ModelMixin):
    _repeated_blocks = ["Block"]  # noqa: RUF012 - as the classes of diffusers name them

    def __init__(self, schemes: Sequence[str]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.Sequential(*(Block() for _ in schemes))
        for block, text in zip(self.blocks, schemes, strict=True):
            scheme = parse_scheme(text)
            block.layer = quantize_module(block.layer, scheme, choose_kernel(scheme, "linear"))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.blocks(x)
        return out


def graphs_of(schemes: Sequence[str], **options: Any) -> int:
    """Of a model that is compiled block by block, after its output was compared."""
    model, x, graphs = Blocks(schemes).eval(), torch.randn(5, 16), Graphs()
    with torch.no_grad():
        expected = model(x)
        model.compile_repeated_blocks(fullgraph=True, backend=graphs, **options)
        check_same(model(x), expected)
    return graphs.count


def test_compile_repeated_blocks() -> None:
    """Blocks with the same schemes share a graph; the limit is that of torch, made smaller to be reached soon."""
    with torch._dynamo.config.patch(recompile_limit=2):
        assert graphs_of(["w8a8", "w4a8", "w8za8", "w8a8", "w4a8"]) == 3


def test_compile_repeated_blocks_of_many_kinds() -> None:
    texts = [f"w{bits}{zero}a8" for bits in (8, 6, 5, 4, 3, 2) for zero in ("", "z")]
    assert graphs_of([*texts, *texts[:8]]) == 12


def test_compile_repeated_blocks_with_a_limit_of_ones_own() -> None:
    with pytest.raises(torch._dynamo.exc.FailOnRecompileLimitHit):
        graphs_of(["w8a8", "w4a8", "w8za8"], recompile_limit=2)


def test_compile_repeated_blocks_of_a_torch_without_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regional, "LIMIT", "no_such_option")
    with torch._dynamo.config.patch(recompile_limit=2):
        with pytest.raises(UserError, match=r"3 kinds of blocks, and torch compiles 2; set .*recompile_limit = 6"):
            graphs_of(["w8a8", "w4a8", "w8za8"])
        assert graphs_of(["w8a8", "w4a8", "w4a8"]) == 2


@pytest.mark.parametrize("in_place", [False, True])
def test_apply_to_a_compiled_component(in_place: bool) -> None:
    """It is compiled again at its next call."""
    graphs, layer = Graphs(), "net.transformer_blocks.0.attn1.to_v"
    expected, net = sampled(made_net(Attentions)), made_net(Attentions)
    plan = plan_of(expected.modules, {layer: "w8a8"})
    if in_place:
        net.compile(backend=graphs)
    subject = sampled(net if in_place else torch.compile(net, backend=graphs))
    full, before = run_subject(subject, subject.conditions, 0), graphs.count
    bitplan.apply(subject, plan)
    found = run_subject(subject, subject.conditions, 0)
    assert graphs.count > before > 0
    assert torch.equal(found, run_subject(bitplan.apply(expected, plan), subject.conditions, 0))
    assert not torch.equal(found, full)


@pytest.mark.parametrize("text", ["w8a8", "w4g64za8t", "w8a8t+first", "w4a16", "fp8a16"])
@pytest.mark.parametrize("real", [True, False])
def test_the_first_call_of_a_process_can_be_compiled(text: str, real: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What tables import when they are first used is there before a compiler traces, also in a process that unpickles
    a layer."""
    scheme, x = parse_scheme(text), torch.randn(2, 3, 64)
    kernel = choose_kernel(scheme, "linear") if real else REFERENCE
    pickled = io.BytesIO()
    torch.save(quantize_module(nn.Linear(64, 5), scheme, kernel, RANGES), pickled)
    pickled.seek(0)
    for line in (FORMATS[scheme.weight.kind], INPUTS[scheme.inputs.kind], TRANSFORMS["first"]):
        monkeypatch.delitem(vars(line), "member", raising=False)
    layer = torch.load(pickled, weights_only=False)
    with torch.no_grad():
        check_same(torch.compile(layer, fullgraph=True, backend="eager")(x), layer(x))
