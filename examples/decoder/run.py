"""Plans the image decoder at several budgets, and compares predicted and measured losses and the reconstructions.

python -m examples.decoder.run --out decoded/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from examples.budgets import ExampleSettings, main, run_example
from examples.decoder.twoway import confusion
from examples.decoder.voxels import record
from torch import Tensor

from bitplan.planner.pipelines.encoder import load_encoder
from bitplan.planner.scenes import CLIP_FOLDER, SCENES
from bitplan.planner.scenes.reader import shows
from bitplan.sensitivity.metrics import METRICS
from bitplan.sensitivity.metrics.learned import Encoder

SETTINGS = ExampleSettings(
    "examples.decoder.subject:decoder", ("semantic", "low", "unet", "vae"), ("20%", "14%", "10%", "8%"), count=8,
    held_out=24, steps=2, checks=2, schemes=("w8a8", "w4ma8", "w3ma8", "w2ma8"),
    metrics=("examples.decoder.twoway:TWOWAY",), clip=str(CLIP_FOLDER),
)  # fmt: skip


@torch.no_grad()
def score(encoder: Encoder, pictures: Tensor) -> Mapping[str, float]:
    """Compares reconstructions with the original pictures by measures of brain decoding and by the scene reader."""
    recording = record(len(pictures), seed=1, held_out=True)
    pixels = (pictures * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return {
        "pixel correlation": 1 - float(METRICS["pixcorr"].function(recording.pictures, pictures).mean()),
        "SSIM": 1 - float(METRICS["dssim"].function(recording.pictures, pictures).mean()),
        "two-way": 1 - float(confusion(encoder.image(recording.pictures), encoder.image(pictures)).mean()),
        "scene shown": float(np.mean([shows(one, scene) for one, scene in zip(pixels, recording.scenes, strict=True)])),
    }


def run(out: Path, **changes: Any) -> dict[str, Any]:
    """Runs the whole example. changes: of its settings, for a small size."""
    return run_example(replace(SETTINGS, **changes), out, partial(score, load_encoder(SCENES)))


if __name__ == "__main__":
    main(run, __doc__)
