"""Plans of the image decoder at some budgets: predicted beside measured, and what is left of the pictures seen.

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
from examples.budgets import Asked, run, story
from examples.decoder.twoway import confused
from examples.decoder.voxels import see
from torch import Tensor

from bitplan.planner.pipelines.encoder import load_encoder
from bitplan.planner.scenes import CLIP_FOLDER, SCENES
from bitplan.planner.scenes.reader import shows
from bitplan.sensitivity.metrics import METRICS
from bitplan.sensitivity.metrics.learned import Encoder

ASKED = Asked(
    "examples.decoder.subject:decoder", ("semantic", "low", "unet", "vae"), ("20%", "14%", "10%", "8%"), count=8,
    held_out=24, steps=2, checks=2, schemes=("w8a8", "w4ma8", "w3ma8", "w2ma8"),
    metrics=("examples.decoder.twoway:TWOWAY",), clip=str(CLIP_FOLDER),
)  # fmt: skip


@torch.no_grad()
def look(encoder: Encoder, pictures: Tensor) -> Mapping[str, float]:
    """Against what was seen, in the measures of brain decoding, and the share that shows the very scene."""
    seen = see(len(pictures), seed=1, held_out=True)
    drawn = (pictures * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return {
        "pixel correlation": 1 - float(METRICS["pixcorr"].function(seen.pictures, pictures).mean()),
        "SSIM": 1 - float(METRICS["dssim"].function(seen.pictures, pictures).mean()),
        "two-way": 1 - float(confused(encoder.image(seen.pictures), encoder.image(pictures)).mean()),
        "scene shown": float(np.mean([shows(one, scene) for one, scene in zip(drawn, seen.scenes, strict=True)])),
    }


def tell(out: Path, **changes: Any) -> dict[str, Any]:
    """The whole example. changes: to what is asked, for a small one."""
    return story(replace(ASKED, **changes), out, partial(look, load_encoder(SCENES)))


if __name__ == "__main__":
    run(tell, __doc__)
