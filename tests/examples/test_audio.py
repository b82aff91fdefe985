"""The model of sounds: it makes the notes asked for, plans of it do what they say, and silence is no sound."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from examples.audio import run, train
from examples.audio.model import WEIGHTS
from examples.audio.sounds import LENGTH, NOTES, detect_pitch, draw_notes, play
from examples.audio.subject import sounds
from examples.budgets import table
from torch import Tensor, nn

import bitplan
from bitplan.planner.pipelines.subject import Subject, run_subject
from bitplan.planner.profiles.profile import open_profile
from bitplan.sensitivity.metrics import METRICS

torch.set_num_threads(1)
ROOT = Path(__file__).parents[2]
RESULT = json.loads((ROOT / "benchmarks/results/example_audio.json").read_text())


def test_notes_are_heard_and_silence_is_not() -> None:
    notes = draw_notes(3 * NOTES, seed=9)
    played = play(torch.stack([note.vector() for note in notes]), torch.linspace(0, 6, len(notes)))
    assert played.abs().max() <= 1 and {note.pitch for note in notes} == set(range(NOTES))
    assert detect_pitch(played).tolist() == [note.pitch for note in notes]
    assert detect_pitch(0.01 * played).tolist() == [-1] * len(notes)


def test_the_model_plays_what_it_is_asked_for() -> None:
    subject = sounds()
    notes = subject.conditions(2 * NOTES, True)
    made = run_subject(subject, notes, seed=50)
    assert made.shape == (len(notes), 1, LENGTH) and made.abs().max() <= 1
    right = detect_pitch(made[:, 0]) == torch.tensor([note.pitch for note in notes])
    assert right.double().mean() >= 0.9
    torch.testing.assert_close(run_subject(subject, notes[:5], 50, batch=2), made[:5], rtol=1e-3, atol=1e-4)
    assert WEIGHTS.stat().st_size < 400_000


def test_training_makes_what_the_subject_loads() -> None:
    made = train.train(2)
    subject = sounds()
    for name, module in subject.modules.items():
        assert {k: v.shape for k, v in made[name].state_dict().items()} == {
            k: v.shape for k, v in module.state_dict().items()
        }


class Fragile(nn.Module):
    """As the layer given, with inputs of nothing on weights so large that at two bits all others are rounded to 0."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.linear = nn.Linear(layer.in_features + 1, layer.out_features)
        large = torch.full((layer.out_features, 1), 100.0)
        self.linear.weight = nn.Parameter(torch.cat([layer.weight, large], 1), requires_grad=False)
        self.linear.bias = nn.Parameter(torch.zeros(layer.out_features), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(torch.cat([x, torch.zeros_like(x[..., :1])], -1))


def test_a_plan_that_makes_silence_scores_badly(tmp_path: Path) -> None:
    """Through the whole of profile, solve and evaluate: the plan's loss is that of silence, far above any other's."""
    subject = sounds()
    denoiser = subject.modules["denoiser"]
    fragile = denoiser.outward = Fragile(denoiser.outward)  # type: ignore[assignment]
    fragile = Subject({**subject.modules, "voice": fragile}, subject.run, subject.conditions, "audio", name="fragile")
    profile = bitplan.profile(fragile, tmp_path / "s.profile", count=2, schemes=("w8a8", "w2a8"), checks=0, timesteps=1,
                              components=("voice",), method="exhaustive")  # fmt: skip
    bitplan.solve(profile, tmp_path / "quiet.plan.yaml", uniform="w2a8")
    found = bitplan.evaluate([tmp_path / "quiet.plan.yaml"], fragile, tmp_path / "report", count=4, blocks=False)
    full, quiet = (result.outputs for result in found.results)
    assert quiet.square().mean() < 1e-4 * full.square().mean() and set(detect_pitch(quiet[:, 0]).tolist()) == {-1}
    silence = METRICS["spectral"].function(full, torch.zeros_like(full)).mean()
    loss = found.results[1].losses["spectral"][0]
    assert loss == pytest.approx(float(silence), rel=0.2)
    assert loss > 1.5 * max(row["losses"]["spectral"]["measured"] for row in RESULT["rows"])
    with open_profile(profile) as store:
        measured = {m.scheme: m.mean for m in store.measurements() if m.metric == "spectral"}
    assert measured["w2a8"] > 0.5 * loss


def test_the_story_at_a_small_size(tmp_path: Path) -> None:
    found = run.run(
        tmp_path, budgets=("26%", "9%"), count=2, held_out=4, steps=1, checks=0, schemes=("w8a8", "w3ma8", "w2ma8")
    )
    full, fine, coarse = found["rows"]
    assert found["layers"] == 20 and table(found).count("\n") == 4
    for row in (fine, coarse):
        assert row["bytes"]["predicted"] == row["bytes"]["held"]
    for metric in ("nsr", "output_nsr", "spectral"):
        losses = [row["losses"][metric]["measured"] for row in (full, fine, coarse)]
        assert losses[0] == 0 < losses[1] < losses[2]


def test_the_figures_told_are_those_measured() -> None:
    assert table(RESULT) in (ROOT / "examples/audio/README.md").read_text()
    assert RESULT["rows"][0]["figures"]["pitch heard"] >= 0.9
    for row in RESULT["rows"][1:]:
        for metric in ("nsr", "output_nsr"):
            loss = row["losses"][metric]
            assert loss["joint"] == pytest.approx(loss["measured"], rel=0.5)
        assert row["losses"]["spectral"]["measured"] < RESULT["spectral of silence"] / 1.4
