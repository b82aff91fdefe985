"""Too little memory is one line with what was tried and what takes less, wherever it is raised, and loses nothing."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import bitplan
from bitplan.planner.cli import main
from bitplan.planner.errors import BAD_INPUT, ShortageError
from bitplan.planner.pipelines.subject import Subject
from bitplan.planner.profiles.profile import open_profile
from bitplan.sensitivity.shortage import asked_for, is_shortage
from tests.odd.subjects import plain

OPTIONS: dict[str, Any] = {"schemes": ("w4a8",), "checks": 0, "timesteps": 1, "probes": 2}
LARGE = 1 << 60
CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of ...")


def caught(raising: Callable[[], object]) -> BaseException:
    with pytest.raises(Exception) as error:
        raising()
    return error.value


@pytest.mark.parametrize(
    ("raising", "asked"),
    [(lambda: torch.empty(LARGE), f"{4 * LARGE} bytes"), (lambda: np.empty(LARGE, np.uint8), "1.00 EiB"),
     (lambda: bytearray(LARGE), "")],
    ids=["torch", "numpy", "python"],
)  # fmt: skip
def test_what_libraries_raise_is_known(raising: Callable[[], object], asked: str) -> None:
    error = caught(raising)
    assert is_shortage(error) and asked_for(error) == asked
    assert is_shortage(CUDA) and asked_for(CUDA) == "2.00 GiB"
    assert not is_shortage(RuntimeError("shape mismatch")) and not is_shortage(ValueError("out of memory"))


def failing(subject: Subject, run: int, error: BaseException, before: list[int] | None = None) -> Subject:
    """The subject, whose runs from number `run` on raise; 0: none. before: gets the conditions of each run."""
    runs: list[int] = [] if before is None else before

    def counted(conditions: Sequence[Any], seed: int) -> Tensor:
        runs.append(len(conditions))
        if 0 < run <= len(runs):
            raise error
        return subject.run(conditions, seed)

    return replace(subject, run=counted)


@pytest.mark.parametrize("error", [CUDA, MemoryError()], ids=["cuda", "python"])
def test_a_run_says_how_many_conditions_were_tried(error: BaseException, tmp_path: Path) -> None:
    with pytest.raises(ShortageError) as caught:
        bitplan.profile(failing(plain(), 1, error), tmp_path / "p.profile", **OPTIONS)
    asked = " when it asked for 2.00 GiB more" if error is CUDA else ""
    text = str(caught.value)
    assert (
        text.startswith("odd, called with tensor(")
        and f" and seed 0 ran out of memory{asked}; close other programs, or" in text
    )
    assert "a smaller --count or --call height=256 --call width=256 or fewer --probes" in text and "\n" not in text


def test_what_was_measured_before_is_kept_and_continues(tmp_path: Path) -> None:
    out, options, runs = tmp_path / "p.profile", OPTIONS | {"method": "exhaustive"}, list[int]()
    bitplan.profile(failing(plain(), 0, MemoryError(), runs), tmp_path / "whole.profile", **options)
    with pytest.raises(ShortageError, match=r"called with tensor\(.* ran out .* continues from there"):
        bitplan.profile(failing(plain(), len(runs), MemoryError()), out, **options)
    with open_profile(out) as store:
        before = store.measured()
    assert before
    bitplan.profile(plain(), out, **options)
    with open_profile(out) as store, open_profile(tmp_path / "whole.profile") as whole:
        assert before < store.measured() == whole.measured()


@pytest.mark.parametrize("error", [CUDA, MemoryError()], ids=["cuda", "python"])
def test_any_verb_says_it(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def raising(*_: object) -> None:
        raise error

    monkeypatch.setattr("bitplan.planner.views.inspect.inspect_file", raising)
    with pytest.raises(
        ShortageError, match="^inspect ran out of memory( when it asked for 2.00 GiB more)?; close other"
    ):
        bitplan.inspect("scenes@12%")


def test_a_worker_can_send_it() -> None:
    sent = pickle.loads(pickle.dumps(ShortageError("a run", "2.00 GiB")))
    assert (sent.what, sent.asked, sent.advice) == ("a run", "2.00 GiB", "")
    assert str(sent) == "a run ran out of memory when it asked for 2.00 GiB more; ask for less"


def small() -> Subject:
    return failing(plain(), 1, CUDA)


def test_the_command_says_it_in_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["profile", f"{__name__}:small", "-q", "--out", str(tmp_path / "p.profile")])
    assert ended.value.code == BAD_INPUT
    line = capfd.readouterr().err.strip().splitlines()[-1]
    assert line.startswith(f"bitplan: {__name__}:small, called with tensor(") and line.endswith("(phase: tracing)")
