"""Every class of the zoo with a T5 or UMT5 packs the embedding that the encoder holds twice as one layer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import bitplan
from bitplan.plans.formats.storage import stored_bytes
from bitplan.plans.layers.modules import module_bytes
from bitplan.plans.scheme import parse_scheme
from tests.packed import plan_for, same, stored
from tests.zoo import ZOO

torch.set_num_threads(1)
ENCODERS = {
    "PixArtSigmaPipeline": "text_encoder", "StableDiffusion3Pipeline": "text_encoder_3",
    "FluxPipeline": "text_encoder_2", "HunyuanDiTPipeline": "text_encoder_2", "AuraFlowPipeline": "text_encoder",
    "WanPipeline": "text_encoder", "CogVideoXPipeline": "text_encoder", "LTXPipeline": "text_encoder",
    "MochiPipeline": "text_encoder", "StableAudioPipeline": "text_encoder", "AudioLDM2Pipeline": "text_encoder_2",
}  # fmt: skip
WORDS = torch.arange(4)[None]


@pytest.mark.parametrize("name", ENCODERS)
def test_the_embedding_that_an_encoder_holds_twice(name: str, tmp_path: Path) -> None:
    pipe, part = ZOO[name].build(), ENCODERS[name]
    encoder = getattr(pipe, part)
    full, pair, shape = (
        module_bytes(encoder),
        (encoder.shared, encoder.encoder.embed_tokens),
        encoder.shared.weight.shape,
    )
    with torch.no_grad():
        expected = encoder(WORDS)[0]
    plan = plan_for(pipe, (part,), ("w8a16",))
    plan = type(plan)(**{**vars(plan), "schemes": {**dict.fromkeys(plan.schemes, "keep"), f"{part}.shared": "w4a16"}})

    bitplan.apply(pipe, plan)
    assert encoder.shared is encoder.encoder.embed_tokens and encoder.shared not in pair
    assert module_bytes(encoder) == full - 4 * shape.numel() + stored_bytes(shape, parse_scheme("w4a16").weight)
    encoder.save_pretrained(tmp_path)
    again = type(encoder).from_pretrained(tmp_path)
    assert again.shared is again.encoder.embed_tokens
    assert same(stored(again), stored(encoder)) and module_bytes(again) == module_bytes(encoder)
    with torch.no_grad():
        found = again(WORDS)[0]
        assert torch.equal(found, encoder(WORDS)[0]) and not torch.equal(found, expected)

    bitplan.restore(pipe)
    assert (encoder.shared, encoder.encoder.embed_tokens) == pair and pair[0].weight is pair[1].weight
    with torch.no_grad():
        assert torch.equal(encoder(WORDS)[0], expected)
