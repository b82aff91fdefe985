"""Loads the CLIP model that the alignment metrics use."""

from __future__ import annotations

import torch
from transformers import AutoTokenizer, CLIPModel

from bitplan.planner.errors import UserError
from bitplan.planner.pipelines.quiet import quiet
from bitplan.planner.scenes import CLIP_FOLDER, SCENES
from bitplan.planner.texts import one_line
from bitplan.sensitivity.metrics.learned import Encoder, clip_encoder

HUB_CLIP = "openai/clip-vit-base-patch32"  # the default model of the alignment metrics


def load_encoder(name: str, clip: str | None = None) -> Encoder:
    """The alignment metric's CLIP: the embedded one for `scenes`, else `clip`, a folder or hub id of a CLIPModel."""
    place = clip or (str(CLIP_FOLDER) if name == SCENES else HUB_CLIP)
    try:
        with quiet():
            # float32 whatever the file holds: rounding to 16 bits moves embeddings by more than a good scheme does
            model = CLIPModel.from_pretrained(place, torch_dtype=torch.float32).eval().requires_grad_(False)
            tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
            mean, std = _normalisation(place)
    except Exception as error:
        reason = one_line(error, 160)
        raise UserError(f"cannot load the CLIP model {place!r}: {reason}; give --clip a folder or hub id, or "
                        "use a Subject with metrics that embed no images") from error  # fmt: skip
    return clip_encoder(model, tokenizer, mean, std)


def _normalisation(place: str) -> tuple[list[float], list[float]]:
    """Returns the mean and standard deviation of the model's image processor."""
    from transformers import CLIPImageProcessor

    processor = CLIPImageProcessor.from_pretrained(place)
    return list(processor.image_mean), list(processor.image_std)
