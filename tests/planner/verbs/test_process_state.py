"""What BitPlan changes for the whole process is as before when a verb ends, also after an error."""

from __future__ import annotations

import gc
import logging
import os
import random
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers.utils.logging as diffusers_logging
import numpy as np
import pytest
import torch
import transformers.utils.logging as transformers_logging
from diffusers import DiffusionPipeline
from huggingface_hub.utils import are_progress_bars_disabled
from wrapt import FunctionWrapper

import bitplan
from bitplan.planner import applied
from bitplan.planner.applied.wrapped import WRAPPERS
from bitplan.planner.costs import allocator
from bitplan.planner.environment import environment
from bitplan.planner.errors import UserError
from bitplan.planner.pipelines.generation import Generation, _unguarded
from bitplan.planner.pipelines.quiet import quiet, quiet_libraries
from bitplan.planner.pipelines.references import importable, typed
from bitplan.planner.pipelines.sources import load_pipeline, load_subject
from bitplan.planner.progress import silenced
from bitplan.sensitivity.runs.generators import seeded


def state() -> dict[str, Any]:
    """All that BitPlan may change in the process."""
    gc.collect()  # subclasses that were made for a `with`
    return {
        "path": list(sys.path),
        "finders": list(sys.meta_path),
        "environment": dict(os.environ),
        "verbosity": (diffusers_logging.get_verbosity(), transformers_logging.get_verbosity()),
        "bars": (diffusers_logging.is_progress_bar_enabled(), transformers_logging.is_progress_bar_enabled(),
                 are_progress_bars_disabled()),
        "logging": logging.root.manager.disable,
        "warnings": list(warnings.filters),
        "threads": torch.get_num_threads(),
        "torch": (torch.is_grad_enabled(), torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled()),
        "random": (torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()),  # noqa: NPY002
        "calls": {cls: vars(cls).get("__call__") for cls in classes_of(DiffusionPipeline)},
        "registered": tuple(sorted(sys.modules[applied.DIFFUSERS].AUTO_QUANTIZER_MAPPING)),
    }  # fmt: skip


def classes_of(base: type) -> list[type]:
    return [base, *(each for cls in base.__subclasses__() for each in classes_of(cls))]


@pytest.fixture
def noisy() -> Any:
    """The libraries show what users may have chosen to see."""
    before = diffusers_logging.get_verbosity(), transformers_logging.get_verbosity()
    diffusers_logging.set_verbosity_info(), transformers_logging.set_verbosity_debug()
    yield
    diffusers_logging.set_verbosity(before[0]), transformers_logging.set_verbosity(before[1])


def steps(model: str, clip: str, folder: Path) -> list[tuple[str, Callable[[], object]]]:
    """The verbs in turn; each reads what those before it wrote."""
    profile, plan = folder / "x.profile", folder / "p.plan.yaml"
    pipe = load_pipeline(model)
    generation = {"steps": 1, "seed": 0}
    return [
        ("profile", lambda: bitplan.profile(
            model, profile, schemes=("w8a8", "w4a8"), count=1, checks=0, offload_folder=folder / "weights",
            clip=clip, **generation)),
        ("solve", lambda: bitplan.solve(profile, plan, memory="40%")),
        ("apply", lambda: bitplan.apply(pipe, plan)),
        ("restore", lambda: bitplan.restore(pipe)),
        ("paint", lambda: bitplan.paint(plan, model, ["a red circle"], folder / "x.png", **generation)),
        ("evaluate", lambda: bitplan.evaluate(
            [plan], model, folder / "report", count=1, blocks=False, clip=clip, **generation)),
        ("bench", lambda: bitplan.bench(plan, model, pairs=1, against=("float32",))),
        ("sweep", lambda: bitplan.sweep(profile, folder / "run", points=2)),
        ("verify", lambda: bitplan.verify(plan, profile)),
        ("inspect", lambda: bitplan.inspect(profile)),
        ("doctor", bitplan.doctor),
    ]  # fmt: skip


def test_the_process_is_as_before_after_each_verb(
    tiny_folder: Path, clip_folder: Path, tmp_path: Path, noisy: None
) -> None:
    for name, verb in steps(str(tiny_folder), str(clip_folder), tmp_path):
        before = state()
        verb()
        after = state()
        assert {key: after[key] for key in after if after[key] != before[key]} == {}, name


FAILING = [
    ("a pipeline that is not there", lambda folder: bitplan.profile(str(folder), folder / "x.profile")),
    ("a module that raises", lambda folder: load_subject(typed("broken_module:make"), Generation())),
    ("a function that raises", lambda folder: load_subject(typed("own_module:fails"), Generation())),
    ("a plan that is not there", lambda folder: bitplan.apply(load_pipeline("scenes"), folder / "p.plan.yaml")),
]


@pytest.mark.parametrize("what, verb", FAILING, ids=[name for name, _ in FAILING])
def test_the_process_is_as_before_after_an_error(
    what: str, verb: Callable[[Path], object], tmp_path: Path, noisy: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_module.py").write_text("raise RuntimeError('no')\n")
    (tmp_path / "own_module.py").write_text("def fails():\n    import own_helper\n    own_helper.no\n")
    (tmp_path / "own_helper.py").write_text("yes = True\n")
    monkeypatch.chdir(tmp_path)
    before = state()
    with pytest.raises((UserError, ValueError)):
        verb(tmp_path)
    after = state()
    assert {key: after[key] for key in after if after[key] != before[key]} == {}
    assert what == "a plan that is not there" or "own_helper" in sys.modules or "own" not in what


CONTEXTS = {
    "quiet": quiet, "quiet_libraries": quiet_libraries, "importable": lambda: importable("/nowhere"),
    "environment": lambda: environment({"BITPLAN_TEST": "1", "PATH": "x"}), "silenced": silenced,
    "seeded": lambda: seeded(0), "kept_memory": allocator.kept_memory, "lean_memory": allocator.lean_memory,
}  # fmt: skip
UNSEEN = ("kept_memory", "lean_memory")  # of the C library, which cannot be asked


@pytest.mark.parametrize("name", CONTEXTS)
def test_contexts_undo_what_they_do(name: str, noisy: None) -> None:
    before = state()
    with pytest.raises(KeyError), CONTEXTS[name]():
        assert name in UNSEEN or state() != before
        raise KeyError
    assert state() == before


def test_nested_pipelines_are_called_without_no_grad_alone() -> None:
    class Inner(DiffusionPipeline):
        @torch.no_grad()
        def __call__(self):
            return torch.is_grad_enabled()

    class Outer(DiffusionPipeline):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

    inner, other = Inner(), Inner()
    outer = Outer(inner)
    with pytest.raises(KeyError), _unguarded(outer):
        assert outer.inner() and not other()
        raise KeyError
    assert type(inner) is Inner and not inner()


def test_allocator_is_told_the_usual_values_again(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []

    class Library:
        def mallopt(self, parameter: int, value: int) -> None:
            told.append((parameter, value))

        def malloc_trim(self, _: int) -> None: ...

    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: Library())
    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("glibc", "2"))
    with allocator.kept_memory(), allocator.lean_memory():
        pass
    assert dict(told) == allocator._USUAL


def test_quantizers_can_be_removed_again() -> None:
    before = dict(sys.modules[applied.DIFFUSERS].AUTO_QUANTIZER_MAPPING)
    methods = [(getattr(sys.modules[file], owner), name) for file, owner, name, _ in WRAPPERS if file in sys.modules]
    applied.register()  # once more
    applied.unregister()
    assert "bitplan" not in sys.modules[applied.DIFFUSERS].AUTO_QUANTIZER_MAPPING
    assert not any(isinstance(vars(owner)[name], FunctionWrapper) for owner, name in methods)
    applied.register()
    assert all(isinstance(vars(owner)[name], FunctionWrapper) for owner, name in methods)
    assert set(sys.modules[applied.DIFFUSERS].AUTO_QUANTIZER_MAPPING) == set(before)
