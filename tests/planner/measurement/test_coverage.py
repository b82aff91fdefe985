"""Layers that some conditions alone run: what is found, said, weighed, merged and continued."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import bitplan
from bitplan.planner.pipelines.traced import examine, examine_all
from bitplan.planner.profiles.profile import content_digest, open_profile
from bitplan.planner.profiles.responses import probed
from tests.odd.experts import chosen, exits_early, two_denoisers

OPTIONS: dict[str, Any] = {"schemes": ("w4a8",), "probes": 4, "timesteps": 2, "checks": 0}
RARE = chosen(0, 0, 0, 0, 1, 0)


@pytest.fixture(scope="module")
def rare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bitplan.profile(RARE(), tmp_path_factory.mktemp("rare") / "r.profile", **OPTIONS)


def test_calls_are_means_over_conditions() -> None:
    subject = exits_early()
    traced = examine_all(subject, subject.conditions)
    expected = {"net.first": (2, 1, 1), "net.experts.0": (2 * 6 / 6, 6, 3), "net.experts.1": (2 * 3 / 6, 6, 2)}
    found = {each.address: (each.call_count, each.runs, each.reached) for each in traced.graph.layers}
    assert found == expected | {"net.last": (2, 1, 1)} and traced.apart
    assert {each.address: each.macs for each in traced.graph.layers}["net.experts.1"] == 12 * 12 * 1
    assert set(traced.ranges) == set(found)


def test_graphs_of_conditions_are_joined() -> None:
    subject = two_denoisers()
    first, every = (look(subject, subject.conditions) for look in (examine, examine_all))
    assert first.denoisers == ("one",) and every.denoisers == ("one", "other")
    assert len(every.graph.layers) == 2 * len(first.graph.layers) and every.graph.unused == ()
    assert ("other.first", "other.experts.0") in every.graph.edges


def test_conditions_alike_keep_the_first_trace() -> None:
    """So that profiles of usual models are what they were, and measure batches."""
    subject = replace(RARE(), conditions=RARE().conditions[:4])
    traced = examine_all(subject, subject.conditions)
    assert traced.graph == examine(subject, subject.conditions).graph and not traced.apart


def test_views_say_on_how_many_samples_a_loss_rests(rare: Path, tmp_path: Path) -> None:
    share = "1 of 6 conditions"
    assert f"net.experts.1 on {share}, net.experts.0 on 5 of 6" in str(bitplan.inspect(rare))
    plan = bitplan.solve(rare, tmp_path / "p.plan.yaml", memory="50%", kernels="fake")
    assert share in str(bitplan.why(plan, rare, "net.experts.1"))
    assert share not in str(bitplan.why(plan, rare, "net.first"))


def test_layers_that_no_condition_runs_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bitplan.profile(chosen(0, 0)(), tmp_path / "r.profile", **OPTIONS)
    assert "1 of 4 layers run on none of 2 conditions and are kept, such as net.experts.1" in capsys.readouterr().err


def test_shares_are_merged(rare: Path, tmp_path: Path) -> None:
    parts = [bitplan.profile(RARE(), tmp_path / f"{k}.profile", part=f"{k}/2", **OPTIONS) for k in (1, 2)]
    with open_profile(bitplan.merge(parts, tmp_path / "m.profile")) as merged, open_profile(rare) as whole:
        assert content_digest(merged) == content_digest(whole)


def test_rounds_without_a_layer_are_continued(rare: Path, tmp_path: Path) -> None:
    """After the first round the expert of a later prompt has no estimate, which would be 0."""
    out = bitplan.profile(RARE(), tmp_path / "r.profile", time="0.001s", **OPTIONS)
    with open_profile(out) as store:
        assert probed(store).idle == ("net.experts.1",)
        assert "net.experts.1" not in {layer for layer, _ in store.measured()}
    bitplan.profile(RARE(), out, **OPTIONS)
    with open_profile(out) as ours, open_profile(rare) as theirs:
        assert not probed(ours).idle and content_digest(ours) == content_digest(theirs)


def test_a_fine_tune_is_checked(rare: Path) -> None:
    other = RARE()
    other.modules["net"].experts[1].weight.data *= 1.1
    found = bitplan.check(rare, other, sample=4)
    assert found.verdict != "same weights" and len({(each.new.layer, each.new.scheme) for each in found.compared}) == 4
    assert all(each.new.mean == pytest.approx(each.old.mean, rel=3) for each in found.compared)
