"""Plans of the model of sounds at some budgets: predicted beside measured, and whether the notes are still heard.

python -m examples.audio.run --out sounds/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from examples.audio.sounds import NOTES, draw_notes, heard
from examples.budgets import Asked, run, story
from torch import Tensor

from bitplan.sensitivity.metrics import METRICS

HELD_OUT_SEED = 2
ASKED = Asked(
    "examples.audio.subject:sounds", ("reader", "denoiser"), ("26%", "18%", "12%", "8%"), count=NOTES, held_out=48
)


def look(sounds: Tensor) -> Mapping[str, float]:
    """The share of held-out notes whose pitch is heard."""
    asked = torch.tensor([note.pitch for note in draw_notes(len(sounds), HELD_OUT_SEED)])
    return {"pitch heard": float((heard(sounds[:, 0]) == asked).double().mean())}


def tell(out: Path, **changes: Any) -> dict[str, Any]:
    """The whole example. changes: to what is asked, for a small one."""
    from bitplan.planner.pipelines.generation import Generation
    from bitplan.planner.pipelines.sources import load_subject
    from bitplan.planner.pipelines.subject import run_subject

    asked = replace(ASKED, **changes)
    found = story(asked, out, look)
    subject = load_subject(asked.subject, Generation())
    full = run_subject(subject, subject.conditions(asked.held_out, True), 1000)
    silence = METRICS["spectral"].function(full, torch.zeros_like(full))
    return found | {"spectral of silence": float(silence.mean())}


if __name__ == "__main__":
    run(tell, __doc__)
