"""Rounds of probes are kept whole and in order, however their results come."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from bitplan.planner.measurement.jobs import JobResult
from bitplan.planner.measurement.rounds import write_missed, write_rounds
from bitplan.planner.profiles.profile import Profile
from bitplan.sensitivity.responses import Reading
from tests.planner.support.measured import digest, losses, state
from tests.planner.support.profile_writer import HEADER, graph, layer

GRID = [("unet.a", "w8a8"), ("unet.a", "w4a8"), ("unet.b", "w8a8")]


def toy_rounds() -> list[JobResult]:
    """Three rounds of two prompts; `unet.b` is out of the probes' reach."""
    rng, found = np.random.default_rng(0), []
    for first in (0, 2, 4):
        reading = {"nsr": Reading((0, 0), (first, first + 1), False)}
        for pair in GRID:
            responses = {"nsr": rng.normal(size=(3, 2)).astype("f4")} if pair[0] == "unet.a" else {}
            found.append(JobResult(pair, (), (first, first + 2), responses, reading))
    return found


def toy_profile(path: Path, found: Sequence[JobResult]) -> Path:
    with Profile.create(path, HEADER) as store:
        store.write_graph(graph(layer("unet.a"), layer("unet.b")), ("w8a8", "w4a8"))
        write_rounds(store, found, {"nsr": "quality"}, len(GRID))
    return path


def test_rounds_that_come_mixed_are_kept_in_order(tmp_path: Path) -> None:
    found = toy_rounds()
    straight = toy_profile(tmp_path / "straight.profile", found)
    assert state(straight).prompts == 6
    assert losses(straight).keys() == {("unet.a", scheme, "nsr") for scheme in ("w8a8", "w4a8")}
    by_hand = np.concatenate([one.responses["nsr"] for one in found if one.pair == GRID[0]], 1)
    assert losses(straight)[(*GRID[0], "nsr")].mean == pytest.approx(float(np.square(by_hand).mean()))
    for seed in range(5):
        mixed = list(np.random.default_rng(seed).permutation(np.array(found, object)))
        again = toy_profile(tmp_path / f"{seed}.profile", mixed)
        assert digest(again) == digest(straight)
        assert state(again) == state(straight)


def test_a_round_that_is_not_whole_is_not_kept(tmp_path: Path) -> None:
    """Nor are later ones: the next command begins with it."""
    found = toy_rounds()
    assert state(toy_profile(tmp_path / "t.profile", found[:2])).prompts == 0
    out = toy_profile(tmp_path / "u.profile", [*found[:3], *found[4:]])
    assert state(out).prompts == 2
    toy_profile(out, found[3:])
    assert digest(out) == digest(toy_profile(tmp_path / "straight.profile", found))


@pytest.mark.parametrize("turn", [1, -1])
def test_what_was_missed_is_kept_pair_by_pair(turn: int, tmp_path: Path) -> None:
    """As soon as all rounds that are done have come."""
    found = [one for one in toy_rounds() if one.responses]
    whole = toy_profile(tmp_path / "whole.profile", toy_rounds())
    mine, other = ([one for one in found if one.pair == pair] for pair in GRID[:2])
    missed = other[::turn]
    out = tmp_path / "t.profile"
    with Profile.create(out, HEADER) as store:
        store.write_graph(graph(layer("unet.a"), layer("unet.b")), ("w8a8", "w4a8"))
        write_rounds(store, mine, {"nsr": "quality"}, 1)
        write_missed(store, missed[:-1], {"nsr": "quality"})
        assert store.measured() == {GRID[0]}
        write_missed(store, missed, {"nsr": "quality"})
    assert digest(out) == digest(whole)
