"""Layers are timed as they run in a model: what is rounded, what the caches hold, what counts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from bitplan.planner.costs import clock as timing
from bitplan.planner.costs.allocator import kept_memory
from bitplan.planner.costs.candidates import Candidate
from bitplan.planner.costs.clock import CacheLoad, median_ms
from bitplan.planner.costs.table import cost_candidates
from bitplan.planner.graph.trace import trace
from bitplan.plans.inputs.integer import quantize_rows
from bitplan.plans.kernels.cpu import int8
from bitplan.plans.scheme import parse_scheme

BUDGET = timing._BUDGET  # of users, as it is before tests/conftest.py shortens it


class Readers(nn.Module):
    """Two layers that read one tensor, and one that reads another."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(x) + self.second(x))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that have passed; only the test lets time pass."""
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(timing, "_BUDGET", BUDGET)
    return now


def test_each_call_rounds_its_input_after_the_rest_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    rounded: list[int] = []
    monkeypatch.setattr(int8, "quantize_rows", lambda *args: rounded.append(1) or quantize_rows(*args))
    calls: list[int] = []
    monkeypatch.setattr(CacheLoad, "run", lambda self: calls.append(1))
    model = Readers().eval()
    graph = trace({"net": model}, lambda: model(torch.randn(3, 8)))
    modules = {f"net.{name}": layer for name, layer in model.named_children()}
    for address in modules:
        candidate = Candidate(address, parse_scheme("w8a8"), None)
        assert [cost.layer for cost in cost_candidates([candidate], graph, modules)] == [address]
        assert len(rounded) == len(calls) > 3
        rounded.clear()
        calls.clear()


def test_the_median_without_what_is_done_before(clock: list[float]) -> None:
    lengths: Iterator[float] = iter([9.0, 3.0, 1.0, 2.0, 5.0, 4.0])  # the first warms up

    def run() -> None:
        clock[0] += next(lengths)

    def before() -> None:
        clock[0] += 100.0

    assert median_ms(run, before) == pytest.approx(3000.0)
    assert next(lengths, None) is None


def test_short_calls_are_repeated_but_not_without_end(clock: list[float]) -> None:
    calls: list[int] = []
    median_ms(lambda: calls.append(1))
    assert len(calls) == 26


def test_the_rest_is_no_larger_than_the_model() -> None:
    small, large = CacheLoad(4000), CacheLoad(1 << 40)
    assert small._values.nbytes == 4000 and large._values.nbytes == 1 << 26


def test_memory_may_be_kept_within_and_used_after() -> None:
    with kept_memory(), kept_memory():
        inside = torch.ones(1 << 24)
    assert inside.sum() == 1 << 24 == torch.ones(1 << 24).sum()
