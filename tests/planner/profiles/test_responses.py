"""Profiles by probes: they say what measuring says, in rounds that survive anything, and tell what came from where."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

import bitplan
from bitplan.planner.measurement import rounds
from bitplan.planner.measurement import schedule as measuring
from bitplan.planner.measurement.rounds import ROUND
from bitplan.planner.profiles.corrections import choose_checks, corrections_of, estimates_of
from bitplan.planner.profiles.file import ProfileError
from bitplan.planner.profiles.profile import open_profile
from bitplan.planner.profiles.responses import probed, responses_of
from bitplan.sensitivity.metrics import TEXT_TO_IMAGE
from tests import tiny
from tests.planner.support.killing import Run, finish, kill_at, progress
from tests.planner.support.measured import digest, losses, state

EIGHT = tuple(f"{size} {thing}" for size in ("a small", "a large") for thing in ("cat", "dog", "red house", "blue car"))
QUICK: dict[str, Any] = {
    "prompts": EIGHT, "schemes": ("w2ma8",), "steps": 2, "timesteps": 1, "guidance": 2.0, "probes": 2,
    "checks": 8,
}  # fmt: skip
Profiler = Callable[..., Path]


@pytest.fixture(scope="module")
def quick(tiny_folder: Path, clip_folder: Path) -> Profiler:
    """Profiles the tiny pipeline on eight prompts, in two rounds."""

    def run(out: Path, **options: Any) -> Path:
        return bitplan.profile(str(tiny_folder), out, clip=str(clip_folder), **(QUICK | options))

    return run


@pytest.fixture(scope="module")
def whole(quick: Profiler, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Undisturbed."""
    return quick(tmp_path_factory.mktemp("whole") / "t.profile")


@pytest.mark.parametrize("metric", ["nsr", "dssim"])
def test_estimates_rank_like_measurements(metric: str, finished: Path, oracle: Path) -> None:
    exact = losses(oracle)
    with open_profile(finished) as store:
        estimates = {key: m.mean for key, m in estimates_of(store).items() if key[2] == metric}
    assert len(estimates) > 150
    found = spearmanr([*estimates.values()], [exact[key].mean for key in estimates]).statistic
    assert found >= 0.9


def test_every_number_says_where_it_came_from(finished: Path, oracle: Path) -> None:
    """Checks are the oracle's numbers; all else is an estimate, moved where the profile says so."""
    exact = losses(oracle)
    with open_profile(finished) as store:
        estimates, fits, checked = estimates_of(store), corrections_of(store), store.measured("exhaustive")
        assert set(choose_checks(store, 16)) == checked
    assert len(checked) == 16
    found = losses(finished)
    assert found.keys() == exact.keys() == estimates.keys()
    for key, m in found.items():
        fit = fits.get(m.metric)
        moved = fit is not None and fit.applies
        factor = fit.factor(estimates[key].mean) if fit else 1.0
        if key[:2] in checked:
            assert m == exact[key]
        else:
            assert m.source == ("corrected" if moved else "probes")
            assert m.mean == pytest.approx(factor * estimates[key].mean, rel=1e-12)
            assert m.stderr == pytest.approx(factor * estimates[key].stderr, rel=1e-12)
    assert {m.source for key, m in found.items() if TEXT_TO_IMAGE[key[2]].signed} == {"exhaustive", "probes"}


def test_checks_are_of_all_sizes(finished: Path) -> None:
    """Evenly by rank, so that where linearity ends shows."""
    with open_profile(finished) as store:
        sizes = {key[:2]: m.mean for key, m in estimates_of(store).items() if key[2] == "nsr"}
        ranks = {pair: rank for rank, pair in enumerate(sorted(sizes, key=lambda pair: sizes[pair]))}
        places = sorted(ranks[pair] / len(ranks) for pair in choose_checks(store, 8))
        assert choose_checks(store, 0) == []
        assert sorted(choose_checks(store, 10**6)) == sorted(sizes)
    assert len(places) == 8
    assert places[0] < 0.25 and places[-1] > 0.75 and np.diff(places).max() < 0.35


def test_rounds_make_one_profile(whole: Path) -> None:
    with open_profile(whole) as store:
        held, pairs = responses_of(store), store.measured()
    its = state(whole)
    assert its.prompts == len(EIGHT) == 2 * ROUND
    assert {key[2] for key in held} == its.readings.keys() == TEXT_TO_IMAGE.keys()
    assert {key[:2] for key in held} == pairs
    for (_, _, metric), sums in held.items():
        reading = its.readings[metric]
        assert sums.shape[1] == len(reading.clusters) == len(reading.strata)
        assert set(reading.clusters) == set(range(len(EIGHT)))
        assert sums.shape[0] == (1 if TEXT_TO_IMAGE[metric].signed or metric == "nsr" else QUICK["probes"])
        assert np.abs(sums).min(axis=0).max() > 0


@pytest.fixture
def run(tiny_folder: Path, clip_folder: Path, tmp_path: Path) -> Run:
    (tmp_path / "prompts.txt").write_text("\n".join(EIGHT))
    options = ("--method", "probes", "--schemes", ",".join(QUICK["schemes"]), "--probes", 2, "--checks", 8)
    return Run(tiny_folder, clip_folder, tmp_path / "prompts.txt", tmp_path / "killed.profile", (*map(str, options),))


def test_killed_between_rounds_it_ends_like_an_undisturbed_one(run: Run, whole: Path) -> None:
    with open_profile(whole) as store:
        first_round = len(store.costs()) + len(store.measured())
    assert kill_at(run, first_round, 0.0) == first_round
    assert state(run.out).prompts == ROUND
    assert finish(run) == digest(whole)
    assert progress(run.out) == first_round


def test_interrupted_after_a_round_it_can_be_planned_with(
    run: Run, whole: Path, command_line: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = rounds._write_round

    def once(store: Any, *rest: Any) -> None:
        if probed(store).prompts:
            raise KeyboardInterrupt
        write(store, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(rounds, "_write_round", once)
        result = command_line(*run.words)
    assert result.exit_code == 130
    assert "continues from there" in result.stderr
    assert state(run.out).prompts == ROUND
    plan = bitplan.solve(run.out, tmp_path / "p.plan.yaml", memory="30%")
    assert bitplan.verify(plan, run.out).failures == ()
    assert bitplan.predict(plan, run.out)["nsr"].joint > 0
    assert losses(run.out).keys() == losses(whole).keys()
    assert command_line(*run.words).exit_code == 0
    assert digest(run.out) == digest(whole)


def test_without_time_there_is_one_round(quick: Profiler, whole: Path, tmp_path: Path) -> None:
    """And nothing is measured by itself; the same command without a limit goes on to the end."""
    out = quick(tmp_path / "t.profile", time="0.001s")
    assert state(out).prompts == ROUND
    found = losses(out)
    assert found.keys() == losses(whole).keys()
    assert {m.source for m in found.values()} == {"probes"}
    assert bitplan.solve(out, tmp_path / "p.plan.yaml", memory="30%").solver["status"] == "optimal"
    assert digest(quick(out)) == digest(whole)


def test_a_share_begun_can_become_the_whole(quick: Profiler, whole: Path, tmp_path: Path) -> None:
    """What its rounds said nothing of is probed on their prompts, too, not measured pair by pair."""
    out = quick(tmp_path / "t.profile", part="2/2", time="0.001s")
    assert state(out).prompts == ROUND
    assert 0 < len(losses(out)) < len(losses(whole))
    assert digest(quick(out)) == digest(whole)


def test_catching_up_stops_in_time_and_keeps_what_is_done(
    quick: Profiler, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few layers at a time; each (layer, scheme) has responses to all rounds that are done, or none."""
    out = quick(tmp_path / "t.profile", part="2/2", checks=0)
    share = losses(out).keys()
    assert losses(quick(out, time="0.001s")).keys() == share  # no time: nothing is begun
    with monkeypatch.context() as patched:
        patched.setattr(measuring, "PORTION", 3)
        patched.setattr(measuring.Schedule, "late", property(lambda plant: losses(plant.store.path).keys() != share))
        quick(out, time="1h")
    found = losses(out)
    assert {metric for _, _, metric in found} == TEXT_TO_IMAGE.keys()
    assert len({layer for layer, _, _ in found.keys() - share}) == 3
    assert found.keys() < losses(whole).keys()
    with open_profile(out) as store:
        assert {key[:2] for key in responses_of(store)} == store.measured()
        assert {len(sums[0]) for sums in responses_of(store).values()} == {len(EIGHT), 2 * len(EIGHT)}
    assert digest(quick(out)) == digest(whole)


def test_other_probes_are_another_profile(quick: Profiler, whole: Path) -> None:
    with pytest.raises(ProfileError, match=r"--probes 2 -> 3; give the old values, or choose another file with --out"):
        quick(whole, probes=3)


def test_exhaustive_measuring_keeps_to_its_time(quick: Profiler, whole: Path, tmp_path: Path) -> None:
    out = quick(tmp_path / "t.profile", method="exhaustive", time="0.001s", prompts=EIGHT[:1])
    with open_profile(out) as store:
        assert len(store.measured()) == 1
        assert not probed(store).prompts


def test_measuring_exhaustively_replaces_estimates(
    finished: Path, oracle: Path, profile: Path, tiny_folder: Path, clip_folder: Path
) -> None:
    bitplan.profile(str(tiny_folder), profile, clip=str(clip_folder), method="exhaustive", **tiny.SETTINGS)
    assert digest(profile) == digest(oracle)
    with open_profile(profile) as again, open_profile(finished) as before:
        assert responses_of(again).keys() == responses_of(before).keys()
    # and probing anew leaves what was measured alone
    bitplan.profile(str(tiny_folder), profile, clip=str(clip_folder), **tiny.SETTINGS)
    assert digest(profile) == digest(oracle)


def test_probing_what_was_measured_keeps_the_measurements(
    oracle: Path, finished: Path, tiny_folder: Path, clip_folder: Path, tmp_path: Path
) -> None:
    """But adds responses, so that whole plans can be predicted."""
    out = Path(shutil.copy(oracle, tmp_path / "t.profile"))
    bitplan.profile(str(tiny_folder), out, clip=str(clip_folder), **tiny.SETTINGS)
    assert digest(out) == digest(oracle)
    with open_profile(out) as store, open_profile(finished) as probed_at_once:
        ours, theirs = responses_of(store), responses_of(probed_at_once)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[key], theirs[key]) for key in ours)
