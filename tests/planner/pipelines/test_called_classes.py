"""Classes of diffusers that refuse lists of pictures or of generators, or know no tensors as outputs."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch
from diffusers.pipelines.wan import pipeline_wan_vace

from bitplan.planner.pipelines.generation import Generation
from bitplan.planner.pipelines.subject import run_subject, subject_of
from tests.zoo import parts, unets, videos
from tests.zoo.animal import PROMPTS, Animal

torch.set_num_threads(1)
FRAMES = 5


def vace() -> Any:
    base = videos.wan()
    return diffusers.WanVACEPipeline(
        tokenizer=base.tokenizer, text_encoder=base.text_encoder, vae=base.vae, scheduler=base.scheduler,
        transformer=diffusers.WanVACETransformer3DModel(
            num_attention_heads=2, attention_head_dim=12, in_channels=videos.LATENT, out_channels=videos.LATENT,
            text_dim=parts.WIDTH, freq_dim=32, ffn_dim=32, num_layers=2, rope_max_seq_len=32, vace_layers=[0],
            vace_in_channels=2 * videos.LATENT + 16,
        ),
    )  # fmt: skip


def amused() -> Any:
    return diffusers.AmusedPipeline(
        transformer=diffusers.UVit2DModel(
            hidden_size=16, use_bias=False, cond_embed_dim=parts.WIDTH, micro_cond_encode_dim=2,
            micro_cond_embed_dim=10, encoder_hidden_size=parts.WIDTH, vocab_size=32,
            codebook_size=8, in_channels=16, block_out_channels=16, num_res_blocks=1, downsample=True, upsample=True,
            block_num_heads=1, num_hidden_layers=1, num_attention_heads=1, intermediate_size=16,
        ),
        scheduler=diffusers.AmusedScheduler(mask_token_id=31),
        vqvae=diffusers.VQModel(
            block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=8, norm_num_groups=8, num_vq_embeddings=8,
            mid_block_add_attention=False, lookup_from_codebook=True,
        ),
        text_encoder=parts.clip_text(projected=True), tokenizer=parts.clip_words(),
    )  # fmt: skip


def ldm3d() -> Any:
    return diffusers.StableDiffusionLDM3DPipeline(
        unet=unets.unet(), **(unets._stable() | {"vae": parts.vae(in_channels=6, out_channels=6)}), image_encoder=None
    )


CLIPS = tuple({"prompt": prompt, "video": [parts.picture(i)] * FRAMES} for i, prompt in enumerate(PROMPTS))
CLASSES = (
    Animal("WanVACEPipeline", "video", vace, ("transformer",), Generation(1, 3.0, options=videos.SHORT), CLIPS),
    Animal("AmusedPipeline", "U-ViT", amused, ("transformer",), Generation(2, 2.0, options={"height": 8, "width": 8})),
    Animal("StableDiffusionLDM3DPipeline", "U-Net", ldm3d, ("unet",), Generation(1, 2.0)),
)


WAYS = {"WanVACEPipeline": (False, "pt"), "AmusedPipeline": (False, "pt"), "StableDiffusionLDM3DPipeline": (True, "np")}


@pytest.mark.parametrize("animal", CLASSES, ids=lambda animal: animal.name)
def test_runs_alone_and_together_alike(animal: Animal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline_wan_vace, "prompt_clean", str.strip)  # it calls ftfy, installed or not
    subject = subject_of(animal.build(), animal.generation)
    together = run_subject(subject, animal.conditions, 3)
    others = [subject_of(animal.build(), animal.generation) for _ in animal.conditions]
    alone = [
        run_subject(other, [one], 3 + i) for i, (other, one) in enumerate(zip(others, animal.conditions, strict=True))
    ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-2, atol=1e-2)
    assert torch.isfinite(together).all() and not torch.equal(*together)
    assert (subject.run.together.together, subject.run.together.output_type) == WAYS[animal.name]
