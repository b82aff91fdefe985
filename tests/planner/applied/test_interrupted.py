"""After an interrupt in the middle of `apply` or `restore` a pipeline is as before, or the call can be repeated."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import bitplan
from bitplan.planner.pipelines.marks import is_marked

# where the interrupt comes, and at which call
PLACES = {
    "bitplan.plans.layers.swap.quantize_module": 3,
    "bitplan.plans.layers.swap.put": 2,
    "bitplan.planner.applied.binding.check_fingerprint": 1,
    "bitplan.planner.applied.pipeline.align": 1,
    "bitplan.planner.applied.pipeline.mark_applied": 1,
}


@pytest.fixture(scope="module")
def plan(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return bitplan.solve(finished, tmp_path_factory.mktemp("plan") / "p.yaml", memory="14%")


def modules(pipe: Any) -> dict[str, Any]:
    return {name: module for part in (pipe.unet, pipe.vae) for name, module in part.named_modules()}


def interrupted(place: str, call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, _, name = place.rpartition(".")
    function, calls = getattr(import_module(owner), name), list[object]()

    def counted(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == call:
            raise KeyboardInterrupt
        return function(*arguments)

    monkeypatch.setattr(place, counted)


@pytest.mark.parametrize("place", PLACES)
def test_apply_leaves_the_pipeline_as_before(place: str, plan: Any, pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before, config = modules(pipe), dict(pipe.unet.config)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        interrupted(place, PLACES[place], patched)
        bitplan.apply(pipe, plan)
    assert modules(pipe) == before and dict(pipe.unet.config) == config and not is_marked(pipe.unet)
    assert is_marked(bitplan.apply(pipe, plan).unet)


@pytest.mark.parametrize("place", ["bitplan.plans.layers.put_back.put", "bitplan.planner.applied.pipeline.unmark"])
def test_restore_can_be_repeated(place: str, plan: Any, pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = modules(pipe)
    bitplan.apply(pipe, plan)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        interrupted(place, 1, patched)
        bitplan.restore(pipe)
    bitplan.restore(pipe)
    assert modules(pipe) == before and not is_marked(pipe.unet)
