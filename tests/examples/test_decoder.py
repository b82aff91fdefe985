"""The image decoder of two branches: each does its part, and plans of it do what they say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from examples.budgets import table
from examples.decoder import branches, run
from examples.decoder.branches import RIDGE, ridge
from examples.decoder.subject import decoder
from examples.decoder.twoway import TWOWAY, confusion
from examples.decoder.voxels import EARLY, VOXELS, record, responses

from bitplan.planner.pipelines.subject import Subject, run_subject
from bitplan.sensitivity.metrics import METRICS

torch.set_num_threads(1)
ROOT = Path(__file__).parents[2]
RESULT = json.loads((ROOT / "benchmarks/results/example_decoder.json").read_text())
COUNT = 120


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def in_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


@pytest.fixture(scope="module")
def subject(cache: Path) -> Subject:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        return decoder(COUNT)


def test_what_is_seen_is_the_same_for_the_same_seed() -> None:
    one, again, other = record(5, 3), record(5, 3), record(5, 4)
    assert torch.equal(one.voxels, again.voxels) and one.scenes == again.scenes != other.scenes
    assert not any(scene.held_out for scene in one.scenes) and all(
        scene.held_out for scene in record(5, 3, True).scenes
    )
    noise = one.voxels - responses(one.pictures, one.scenes)
    assert 0.13 < float(noise.std()) < 0.17 and one.voxels.shape == (5, VOXELS)


def test_ridge_is_at_the_least_of_what_it_minimises() -> None:
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 6, generator=draw), torch.randn(40, 3, generator=draw)
    weight, bias = ridge(x, y)
    left = y - x @ weight.T - bias
    strength = RIDGE * (x - x.mean(0)).square().sum(0).mean()
    torch.testing.assert_close(left.T @ (x - x.mean(0)), strength * weight, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(left.mean(0), torch.zeros(3), atol=1e-5, rtol=0)


def test_two_way_identification_counts_pairs() -> None:
    draw = torch.Generator().manual_seed(0)
    originals = torch.randn(7, 5, generator=draw)
    found = originals + torch.randn(7, 5, generator=draw)
    likeness = torch.nn.functional.cosine_similarity(found[:, None], originals[None], dim=-1)
    wrong = [sum(bool(likeness[i, j] > likeness[i, i]) for j in range(7) if j != i) / 6 for i in range(7)]
    assert confusion(originals, found).tolist() == pytest.approx(wrong) and sum(wrong) > 0
    assert confusion(originals, 3 * originals).tolist() == [0.0] * 7 and confusion(
        originals[:1], found[:1]
    ).tolist() == [0]
    many = torch.randn(2, 200, 40, generator=draw)
    assert float(confusion(*many).mean()) == pytest.approx(0.5, abs=0.06)
    assert not TWOWAY.additive


def test_branches_are_fitted_once(subject: Subject, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bitplan.planner.pipelines.sources import load_pipeline
    from bitplan.planner.scenes import SCENES

    monkeypatch.setattr(branches, "_fit", lambda *_: pytest.fail("fitted again"))
    again = branches.branches_for(load_pipeline(SCENES), COUNT)
    assert torch.equal(again["low"].linear.weight, subject.modules["low"].linear.weight)
    assert [path.suffix for path in (cache / "bitplan").iterdir()] == [".safetensors"]


def test_both_branches_show_what_was_seen(subject: Subject) -> None:
    """Known pictures are recognised; voxels of either branch, taken from another scene, spoil them."""
    recording = record(4, seed=0)
    voxels = list(recording.voxels)
    made = run_subject(subject, voxels, 0)
    assert made.shape == (4, 3, 64, 64) and made.min() >= 0 and made.max() <= 1
    torch.testing.assert_close(run_subject(subject, voxels[:2], 0, batch=1), made[:2], rtol=1e-3, atol=1e-3)

    def loss(pictures: torch.Tensor) -> float:
        return float(METRICS["pixcorr"].function(recording.pictures, pictures).mean())

    assert loss(made) < 0.25
    rolled = recording.voxels.roll(1, 0)
    for mixed in ((rolled[:, :EARLY], recording.voxels[:, EARLY:]), (recording.voxels[:, :EARLY], rolled[:, EARLY:])):
        assert loss(run_subject(subject, list(torch.cat(mixed, 1)), 0)) > 1.3 * loss(made)


def test_the_story_at_a_small_size(tmp_path: Path, subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the branches alone planned, which the denoiser's own output does not show."""
    monkeypatch.setattr("examples.decoder.subject.decoder", lambda: decoder(COUNT))
    monkeypatch.setattr("examples.decoder.subject.STEPS", 2)
    found = run.run(
        tmp_path, components=("semantic", "low"), budgets=("26%", "7%"), count=1, held_out=2, steps=1, checks=0,
        schemes=("w8a8", "w2ma8"),
    )  # fmt: skip
    full, fine, coarse = found["rows"]
    assert found["layers"] == 2 and set(full["figures"]) == {"pixel correlation", "SSIM", "two-way", "scene shown"}
    for row in (fine, coarse):
        assert row["bytes"]["predicted"] == row["bytes"]["held"] and row["losses"]["twoway"]["joint"] is None
    assert all(row["losses"]["nsr"]["measured"] == 0 for row in found["rows"])
    for metric in ("dssim", "pixcorr"):
        losses = [row["losses"][metric]["measured"] for row in (full, fine, coarse)]
        assert losses[0] == 0 < losses[1] < losses[2]


def test_the_figures_told_are_those_measured() -> None:
    assert table(RESULT) in (ROOT / "examples/decoder/README.md").read_text()
    figures = RESULT["rows"][0]["figures"]
    assert figures["pixel correlation"] > 0.9 and figures["SSIM"] > 0.85 and figures["two-way"] > 0.95
    assert figures["scene shown"] > 0.9
