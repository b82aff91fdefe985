"""Metrics of the user's own: by reference, tried before use, and as columns of a profile that a plan may be made by."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import bitplan
from bitplan.planner.choice.evidence import members_of, read_evidence
from bitplan.planner.choice.problem import formulate
from bitplan.planner.errors import UserError
from bitplan.planner.pipelines.metrics import metrics_of
from bitplan.planner.pipelines.references import typed
from bitplan.planner.profiles.profile import Profile, open_profile
from bitplan.sensitivity.metrics import METRICS, Metric
from bitplan.sensitivity.metrics.curvature import probe_for
from bitplan.sensitivity.metrics.trial import check_metric
from bitplan.sensitivity.table import Measurement, MeasurementError

MODULE = '''
"""Metrics of a user."""
import torch
from bitplan.sensitivity.metrics import METRICS, Metric

def tone(full, variant):
    """Squared difference of the mean.

    More of it.
    """
    return (full - variant).float().flatten(1).mean(1).square()

def bytes(full, variant):
    return tone(full, variant)

def quality(full, variant):
    return tone(full, variant)

def both(full, variant):
    return tone(full, variant)

def latency(full, variant):
    return tone(full, variant)

def nsr(full, variant):
    return tone(full, variant)

class Box:
    tone = tone
    signed = Metric("lean", "own", "output", "mean change", lambda a, b: (b - a).flatten(1).mean(1), signed=True)
    odd_family = Metric("odd", "beauty", "output", "", tone)
    odd_reads = Metric("odd", "own", "thoughts", "", tone)
    odd_output = Metric("odd", "own", "output", "", tone, outputs=("smells",))
    odd_name = Metric("o=d", "own", "output", "", tone)
    tone_again = Metric("tone", "own", "denoised", "", tone)

three = 3
'''


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MODULE, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    return name


def test_a_function_becomes_a_metric_of_the_outputs(module: str) -> None:
    [metric] = metrics_of(typed([f"{module}:tone"]))
    assert (metric.name, metric.family, metric.reads) == ("tone", "own", "output")
    assert metric.says == "Squared difference of the mean."
    losses = metric.function(torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 0.5))
    assert losses.dtype == torch.float64 and losses.tolist() == [0.25, 0.25]
    assert probe_for(metric, torch.rand(2, 3, 4, 4)).how == "its curvature"


def test_names_and_references_keep_their_order(module: str) -> None:
    found = metrics_of(typed(["spectral", f"{module}:Box.signed", "nsr", f"{module}:tone", "nsr", f"{module}:tone"]))
    assert [metric.name for metric in found] == ["spectral", "lean", "nsr", "tone"]
    assert found[0] is METRICS["spectral"] and found[1].signed
    assert probe_for(found[1], torch.rand(2, 3, 4, 4)).how == "its gradient"


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("{}:bytes", "named bytes, which has another meaning for `solve`"),
        ("{}:quality", "named quality, which has another meaning"),
        ("{}:both", "named both, which has another meaning"),
        ("{}:latency", "named latency, which has another meaning"),
        ("{}:nsr", "named nsr, which is a built-in metric"),
        ("{}:Box.odd_family", "its family is 'beauty'; use one of quality, alignment, own"),
        ("{}:Box.odd_reads", "its reads is 'thoughts'; use one of denoised, output, images"),
        ("{}:Box.odd_output", "'smells' is not a kind of output"),
        ("{}:Box.odd_name", "named 'o=d'"),
        ("{}:three", "is of type int, not a metric; name a function"),
        ("{}:Box", "is of type type, not a metric"),
        ("{}:none", "AttributeError"),
        ("no_such_module:none", "ModuleNotFoundError"),
        ("dsim", "did you mean 'dssim'. .*; one of your own is written package.module:name"),
    ],
)
def test_what_is_no_metric_is_refused(reference: str, reason: str, module: str) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        metrics_of(typed([reference.format(module)]))
    assert "\n" not in str(caught.value)


def test_two_of_one_name_are_refused(module: str) -> None:
    with pytest.raises(UserError, match="two metrics are named tone"):
        metrics_of(typed([f"{module}:tone", f"{module}:Box.tone_again"]))


def test_a_built_in_without_its_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = dataclasses.replace(METRICS["lpips"], missing=lambda: "not installed; pip install it")
    monkeypatch.setitem(METRICS, "lpips", lacking)
    with pytest.raises(UserError, match="lpips: not installed; pip install it"):
        metrics_of(["lpips"])


SAMPLE = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
RANDOM = torch.Generator().manual_seed(0)


def each(a: torch.Tensor) -> torch.Tensor:
    return a.flatten(1).mean(1)


WRONG: dict[str, Callable[..., Any]] = {
    "gives (3, 3, 8, 8) for 3 outputs": lambda a, b: (a - b).square(),
    "gives () for 3 outputs; it must give a tensor of shape (3,)": lambda a, b: (a - b).square().mean(),
    "gives float for 3 outputs": lambda a, b: float((a - b).square().mean()),
    "gives list for 3": lambda a, b: [0.0, 0.0, 0.0],
    "3 losses not finite": lambda a, b: each(a - b) / 0,
    "is 0.5 for equal outputs": lambda a, b: each(a - b) + 0.5,
    "is 1 for equal outputs": lambda a, b: torch.nn.functional.cosine_similarity(a.flatten(1), b.flatten(1)).round(),
    "for a changed output; a loss is 0 or more": lambda a, b: -each((a - b).square()),
    "fails": lambda a, b: int("of its\nown"),
    "gives other losses when called again": lambda a, b: each((a - b).square()) * torch.rand(3, generator=RANDOM),
    "another loss when it comes alone": lambda a, b: (a - b).square().mean().expand(len(a)),
    "complex numbers": lambda a, b: each((a - b).square()) * 1j,
}


@pytest.mark.parametrize("reason", WRONG)
def test_a_wrong_metric_is_refused_before_anything_slow(reason: str) -> None:
    with pytest.raises(MeasurementError) as caught:
        check_metric(Metric("mine", "own", "output", "", WRONG[reason]), SAMPLE)
    message = str(caught.value)
    if reason.startswith("fails"):
        assert "fails on output 1 of 3, of shape (1, 3, 8, 8): ValueError" in message
    else:
        assert reason in message
    assert "\n" not in message and "mine" in message


@pytest.mark.parametrize(
    "metric",
    [
        Metric("mine", "own", "output", "", lambda a, b: each((a - b).square())),
        Metric("mine", "own", "output", "", lambda a, b: each(a - b), signed=True),
        Metric("mine", "own", "output", "", lambda a, b: (a - b).square().mean().expand(len(a)), additive=False),
        Metric("mine", "own", "output", "", lambda a, b: each(a.sub_(b).square_())),  # writes into what it gets
        METRICS["pixcorr"],
        METRICS["frechet"],
    ],
    ids=["plain", "signed", "of the set", "in place", "built in", "frechet"],
)
def test_a_right_one_passes_and_leaves_the_sample_alone(metric: Metric) -> None:
    sample = SAMPLE.clone() if metric.name != "frechet" else SAMPLE.flatten(1).clone()
    before = sample.clone()
    check_metric(metric, sample)
    assert torch.equal(sample, before)


def test_the_change_that_is_tried_stays_within_the_sample_s_range() -> None:
    def within(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        assert float(b.min()) >= float(SAMPLE.min()) and float(b.max()) <= float(SAMPLE.max())
        return each((a - b).square())

    check_metric(Metric("mine", "own", "output", "", within), SAMPLE)


# a profile with a metric of the user's own: measured like the others, and in no objective unless named


@pytest.fixture
def own(profile: Path) -> Path:
    """A finished profile with `tone`, whose losses are largest where `nsr` is smallest."""
    with open_profile(profile) as store:
        header = store.header()
        rows = {(m.layer, m.scheme): m for m in store.measurements() if m.metric == "nsr"}
    with Profile.create(profile, header) as store:
        store.write_measurements(
            [Measurement(*pair, "tone", 1 / (1 + 1e3 * m.mean), 0.01, m.count) for pair, m in rows.items()],
            {"tone": "own"},
        )
    return profile


def test_it_is_a_column_and_no_part_of_any_family(own: Path, finished: Path, tmp_path: Path) -> None:
    with open_profile(own) as store:
        evidence = read_evidence(store)
    assert evidence.metrics["tone"] == "own"
    assert all("tone" not in members_of(evidence, family) for family in ("quality", "alignment"))
    assert "own" not in formulate(evidence, {}, (), real=True).columns
    plans = [bitplan.solve(path, tmp_path / "p.plan.yaml", memory="12%") for path in (own, finished)]
    assert plans[0].schemes == plans[1].schemes
    assert plans[0].solver["weights"] == {"quality": 1.0, "alignment": 1.0}
    totals = [plan.predictions["total"] for plan in plans]
    assert totals[0].pop("tone") > 0 and totals[0] == totals[1]


def test_it_can_be_capped_and_weighed_by_name(own: Path, tmp_path: Path) -> None:
    path = tmp_path / "p.plan.yaml"
    free = bitplan.solve(own, path, memory="12%").predictions["total"]
    least = bitplan.solve(own, path, memory="12%", objective="tone=1").predictions["total"]
    assert least["tone"] < free["tone"] and least["quality"] > free["quality"]
    most = (least["tone"] + free["tone"]) / 2
    capped = bitplan.solve(own, path, memory="12%", caps={"tone": str(most)})
    assert capped.predictions["total"]["tone"] <= most == capped.budgets["tone"]
    assert bitplan.verify(path, own).failures == ()
    by_scheme = bitplan.solve(own, path, caps={"tone": "w8a8"}, objective="quality=1,tone=0.5")
    with sqlite3.connect(own) as base:
        (mean,) = base.execute(
            "SELECT avg(mean) FROM measurements WHERE metric = 'tone' AND scheme != 'keep'"
        ).fetchone()
    assert by_scheme.solver["weights"] == {"quality": 1.0, "tone": pytest.approx(0.5 / mean)}
    assert bitplan.verify(path, own).failures == ()
    sure = bitplan.solve(own, path, memory="12%", objective="tone=1", confidence=0.95)
    assert sure.solver["objective"] > least["tone"]


def test_it_is_shown(own: Path, finished: Path, tmp_path: Path) -> None:
    path = tmp_path / "p.plan.yaml"
    bitplan.solve(own, path, memory="12%")
    assert "tone " in str(bitplan.inspect(path)) and "| tone" in str(bitplan.inspect(own))
    assert "| tone" in str(bitplan.why(path, own, "unet.conv_out"))
    swept = bitplan.sweep(own, tmp_path / "run", start="12%", stop="30%", points=2)
    assert "| tone" in str(swept)
    capped = bitplan.sweep(own, tmp_path / "run", by="tone", start="w8a8", stop="w4g64ma8", points=2, memory="30%")
    assert "tone at most" in str(capped)
    bitplan.solve(finished, path, memory="12%")
    assert "tone" not in str(bitplan.why(path, finished, "unet.conv_out"))


def test_one_that_was_measured_for_some_alone_can_be_neither_capped_nor_weighed(own: Path, tmp_path: Path) -> None:
    with sqlite3.connect(own) as db:
        db.execute("DELETE FROM measurements WHERE metric = 'tone' AND scheme = 'w8a8'")
    path = tmp_path / "p.plan.yaml"
    assert "tone" not in bitplan.solve(own, path, memory="12%").predictions["total"]
    for request in ({"objective": "tone=1"}, {"caps": {"tone": "3"}}, {"caps": {"tone": "w8a8"}}):
        with pytest.raises(UserError, match="tone was measured for .* of .* profile with --method exhaustive"):
            bitplan.solve(own, path, **request)
    with pytest.raises(UserError, match="tone was measured for"):
        bitplan.sweep(own, tmp_path / "run", by="tone", start="1", stop="2", points=2)


def test_a_profile_without_alignment_is_planned_by_quality(own: Path, tmp_path: Path) -> None:
    """As one of sounds, or of images without an encoder."""
    with sqlite3.connect(own) as db:
        db.execute("DELETE FROM measurements WHERE family = 'alignment'")
        db.execute("DELETE FROM responses WHERE metric IN ('clip_drop', 'embed_drift')")
    path = tmp_path / "p.plan.yaml"
    plan = bitplan.solve(own, path, memory="12%")
    assert plan.solver["weights"] == {"quality": 1.0}
    assert bitplan.verify(path, own).failures == ()
    assert "undecided at" in str(bitplan.inspect(own))


def test_a_profile_of_own_metrics_alone_needs_an_objective(own: Path, tmp_path: Path) -> None:
    with sqlite3.connect(own) as db:
        db.execute("DELETE FROM measurements WHERE family != 'own'")
        db.execute("DELETE FROM responses")
    with pytest.raises(UserError, match="quality"):
        bitplan.solve(own, tmp_path / "p.plan.yaml", memory="12%")
    plan = bitplan.solve(own, tmp_path / "p.plan.yaml", memory="12%", objective="tone")
    assert plan.solver["weights"] == {"tone": 1.0}
