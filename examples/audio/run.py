"""Plans the model of sounds at several budgets, and compares predicted and measured losses and detected pitches.

python -m examples.audio.run --out sounds/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from examples.audio.sounds import NOTES, detect_pitch, draw_notes
from examples.budgets import ExampleSettings, main, run_example
from torch import Tensor

from bitplan.sensitivity.metrics import METRICS

HELD_OUT_SEED = 2
SETTINGS = ExampleSettings(
    "examples.audio.subject:sounds", ("reader", "denoiser"), ("26%", "18%", "12%", "8%"), count=NOTES, held_out=48
)


def score(sounds: Tensor) -> Mapping[str, float]:
    """Returns the share of held-out notes whose pitch is detected."""
    pitches = torch.tensor([note.pitch for note in draw_notes(len(sounds), HELD_OUT_SEED)])
    return {"pitch heard": float((detect_pitch(sounds[:, 0]) == pitches).double().mean())}


def run(out: Path, **changes: Any) -> dict[str, Any]:
    """Runs the whole example. changes: of its settings, for a small size."""
    from bitplan.planner.pipelines.generation import Generation
    from bitplan.planner.pipelines.references import typed
    from bitplan.planner.pipelines.sources import load_subject
    from bitplan.planner.pipelines.subject import run_subject

    settings = replace(SETTINGS, **changes)
    result = run_example(settings, out, score)
    subject = load_subject(typed(settings.subject), Generation())
    full = run_subject(subject, subject.conditions(settings.held_out, True), 1000)
    silence = METRICS["spectral"].function(full, torch.zeros_like(full))
    return result | {"spectral of silence": float(silence.mean())}


if __name__ == "__main__":
    main(run, __doc__)
