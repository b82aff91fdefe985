"""Pipelines around a diffusion transformer."""

from __future__ import annotations

from typing import Any

import diffusers
from diffusers import (
    AuraFlowTransformer2DModel,
    AutoencoderDC,
    AutoencoderKLQwenImage,
    DDIMScheduler,
    DDPMScheduler,
    DiTTransformer2DModel,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxTransformer2DModel,
    HunyuanDiT2DModel,
    Lumina2Transformer2DModel,
    PixArtTransformer2DModel,
    QwenImageTransformer2DModel,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    ZImageTransformer2DModel,
)
from transformers import BertConfig, BertModel, UMT5Config, UMT5EncoderModel

from bitplan.planner.pipelines.generation import Generation
from tests import tiny
from tests.zoo import parts
from tests.zoo.animal import PROMPTS, Animal

WIDTH, SIDE = parts.WIDTH, tiny.SIDE
LATENT = SIDE // 2
HEADS = {"num_attention_heads": 2, "attention_head_dim": 16}  # 32 wide, as the text encoders are
WORDS = 8  # of a prompt


def by_class() -> Any:
    """The pipeline uses class 1000 for no class."""
    return diffusers.DiTPipeline(
        DiTTransformer2DModel(
            **HEADS, num_layers=2, out_channels=8, sample_size=LATENT, num_embeds_ada_norm=1000, norm_num_groups=8
        ),
        parts.vae(), DDIMScheduler(clip_sample=False),
    )  # fmt: skip


def pixart() -> Any:
    return diffusers.PixArtSigmaPipeline(
        parts.words(), parts.t5(), parts.vae(),
        PixArtTransformer2DModel(
            **HEADS, num_layers=2, sample_size=LATENT, cross_attention_dim=WIDTH, caption_channels=WIDTH
        ),
        DPMSolverMultistepScheduler(),
    )  # fmt: skip


def stable_diffusion_3() -> Any:
    """The concatenated texts of both CLIPs are as wide as those of T5."""
    return diffusers.StableDiffusion3Pipeline(
        SD3Transformer2DModel(
            **HEADS, num_layers=2, sample_size=LATENT, in_channels=4, out_channels=4, joint_attention_dim=2 * WIDTH,
            caption_projection_dim=WIDTH, pooled_projection_dim=2 * WIDTH, pos_embed_max_size=LATENT,
            dual_attention_layers=(0,), qk_norm="rms_norm",
        ),
        FlowMatchEulerDiscreteScheduler(shift=3.0), parts.vae(shift_factor=0.06, use_quant_conv=False),
        parts.clip_text(projected=True), parts.clip_words(), parts.clip_text(projected=True), parts.clip_words(),
        parts.t5(d_model=2 * WIDTH), parts.words(),
    )  # fmt: skip


def flux() -> Any:
    return diffusers.FluxPipeline(
        FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), parts.vae(shift_factor=0.1),
        parts.clip_text(), parts.clip_words(), parts.t5(), parts.words(),
        FluxTransformer2DModel(
            **HEADS, in_channels=16, num_layers=1, num_single_layers=2, joint_attention_dim=WIDTH,
            pooled_projection_dim=WIDTH, guidance_embeds=True, axes_dims_rope=(4, 6, 6),
        ),
    )  # fmt: skip


def sana() -> Any:
    vae = AutoencoderDC(
        latent_channels=4, attention_head_dim=4, encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"), encoder_block_out_channels=(8, 16),
        decoder_block_out_channels=(8, 16), encoder_layers_per_block=(1, 1), decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), (5,)), decoder_qkv_multiscales=((), (5,)), decoder_norm_types="rms_norm",
        downsample_block_type="conv", upsample_block_type="interpolate", decoder_act_fns="silu",
    )  # fmt: skip
    transformer = SanaTransformer2DModel(
        **HEADS, in_channels=4, out_channels=4, num_layers=2, num_cross_attention_heads=2, cross_attention_head_dim=16,
        cross_attention_dim=WIDTH, caption_channels=WIDTH, sample_size=LATENT,
    )  # fmt: skip
    return diffusers.SanaPipeline(
        parts.words(begin=True), parts.gemma(), vae, transformer,
        DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
    )  # fmt: skip


def lumina() -> Any:
    return diffusers.Lumina2Pipeline(
        Lumina2Transformer2DModel(
            sample_size=LATENT, in_channels=4, hidden_size=WIDTH, num_layers=2, num_refiner_layers=1,
            num_attention_heads=2, num_kv_heads=1, multiple_of=16, axes_dim_rope=(8, 4, 4), axes_lens=(64, 32, 32),
            cap_feat_dim=WIDTH,
        ),
        FlowMatchEulerDiscreteScheduler(), parts.vae(shift_factor=0.1), parts.gemma(), parts.words(begin=True),
    )  # fmt: skip


def hunyuan() -> Any:
    """The pipeline pads its texts to 77 and 256 words."""
    return diffusers.HunyuanDiTPipeline(
        parts.vae(),
        BertModel(
            BertConfig(
                vocab_size=len(parts.words()), hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2,
                intermediate_size=2 * WIDTH, max_position_embeddings=77,
            )
        ),
        parts.words(77),
        HunyuanDiT2DModel(
            **HEADS, in_channels=4, patch_size=2, sample_size=LATENT, hidden_size=WIDTH, num_layers=2,
            cross_attention_dim=WIDTH, cross_attention_dim_t5=WIDTH, pooled_projection_dim=16,
        ),
        DDPMScheduler(), None, None, False, parts.t5(), parts.words(256),
    )  # fmt: skip


def aura() -> Any:
    return diffusers.AuraFlowPipeline(
        parts.words(), UMT5EncoderModel(parts.t5_config(UMT5Config)), parts.vae(),
        AuraFlowTransformer2DModel(
            **HEADS, sample_size=LATENT, num_mmdit_layers=1, num_single_dit_layers=1, joint_attention_dim=WIDTH,
            caption_projection_dim=WIDTH, pos_embed_max_size=16,
        ),
        FlowMatchEulerDiscreteScheduler(shift=1.73),
    )  # fmt: skip


def z_image() -> Any:
    return diffusers.ZImagePipeline(
        FlowMatchEulerDiscreteScheduler(), parts.vae(shift_factor=0.1), parts.qwen(), parts.words(),
        ZImageTransformer2DModel(
            in_channels=4, dim=WIDTH, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=WIDTH,
            axes_dims=[8, 4, 4], axes_lens=[256, 32, 32],
        ),
    )  # fmt: skip


def qwen() -> Any:
    vae = AutoencoderKLQwenImage(
        base_dim=8, z_dim=4, dim_mult=[1, 2], num_res_blocks=1, temperal_downsample=[False], latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )  # fmt: skip
    return diffusers.QwenImagePipeline(
        FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), vae, parts.qwen_vl(), parts.words(),
        QwenImageTransformer2DModel(
            **HEADS, in_channels=16, out_channels=4, num_layers=2, joint_attention_dim=WIDTH, axes_dims_rope=(4, 6, 6)
        ),
    )  # fmt: skip


SIZE = {"height": SIDE, "width": SIDE}
READ = SIZE | {"max_sequence_length": WORDS}
LARGER = {"height": 32, "width": 32, "max_sequence_length": WORDS}  # nothing smaller is taken
LATENTS = {"height": 8 * LATENT, "width": 8 * LATENT}  # as of decoders with four resolutions, whatever there is
PLAIN = {"clean_caption": False, "use_resolution_binning": False}

GUIDED = tuple({"prompt": prompt, "negative_prompt": "a red square"} for prompt in PROMPTS)

DITS: tuple[Animal, ...] = (
    Animal("DiTPipeline", "DiT", by_class, ("transformer",), Generation(2, 2.0),
           ({"class_labels": 1}, {"class_labels": 7})),
    Animal("PixArtSigmaPipeline", "DiT", pixart, ("transformer",), Generation(2, 2.0, options=READ | PLAIN)),
    Animal("StableDiffusion3Pipeline", "DiT", stable_diffusion_3, ("transformer",), Generation(2, 2.0, options=READ)),
    Animal("FluxPipeline", "DiT", flux, ("transformer",), Generation(2, 2.0, options=READ)),
    Animal("SanaPipeline", "DiT", sana, ("transformer",),
           Generation(2, 2.0, options=LARGER | PLAIN | {"complex_human_instruction": None})),
    Animal("Lumina2Pipeline", "DiT", lumina, ("transformer",),
           Generation(2, 2.0, options=LATENTS | {"max_sequence_length": 16, "system_prompt": "paint"})),
    Animal("HunyuanDiTPipeline", "DiT", hunyuan, ("transformer",),
           Generation(2, 2.0, options=SIZE | {"use_resolution_binning": False})),
    Animal("AuraFlowPipeline", "DiT", aura, ("transformer",), Generation(2, 2.0, options=READ)),
    Animal("ZImagePipeline", "DiT", z_image, ("transformer",), Generation(2, 2.0, options=READ)),
    Animal("QwenImagePipeline", "DiT", qwen, ("transformer",),
           Generation(2, options=SIZE | {"max_sequence_length": 16, "true_cfg_scale": 2.0}), GUIDED),
)  # fmt: skip
