"""Pipelines that generate videos."""

from __future__ import annotations

from typing import Any

from diffusers import (
    AnimateDiffPipeline,
    AutoencoderKLCogVideoX,
    AutoencoderKLHunyuanVideo,
    AutoencoderKLLTXVideo,
    AutoencoderKLMochi,
    AutoencoderKLWan,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    MochiPipeline,
    MochiTransformer3DModel,
    MotionAdapter,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from transformers import LlamaConfig, LlamaModel, UMT5Config, UMT5EncoderModel

from bitplan.planner.pipelines.generation import Generation
from tests.zoo import parts
from tests.zoo.animal import Animal

LATENT = 4  # channels
SHORT = {"height": 16, "width": 16, "num_frames": 5, "max_sequence_length": 16}
LARGER = SHORT | {"height": 32, "width": 32}


def wan() -> Any:
    """Like Wan 2.2: one transformer for the noisy steps, another one for the rest."""
    return WanPipeline(
        tokenizer=parts.words(),
        text_encoder=UMT5EncoderModel(parts.t5_config(UMT5Config)),
        vae=AutoencoderKLWan(
            base_dim=8, z_dim=LATENT, dim_mult=[1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True],
            latents_mean=[0.0] * LATENT, latents_std=[1.0] * LATENT, scale_factor_temporal=2, scale_factor_spatial=4,
        ),
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
        transformer=wan_transformer(),
        transformer_2=wan_transformer(),
        boundary_ratio=0.875,
    )  # fmt: skip


def wan_transformer() -> WanTransformer3DModel:
    return WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, in_channels=LATENT, out_channels=LATENT, text_dim=parts.WIDTH,
        freq_dim=32, ffn_dim=32, num_layers=2, rope_max_seq_len=32,
    )  # fmt: skip


def cogvideox() -> Any:
    return CogVideoXPipeline(
        tokenizer=parts.words(),
        text_encoder=parts.t5(),
        vae=AutoencoderKLCogVideoX(
            down_block_types=("CogVideoXDownBlock3D",) * 2, up_block_types=("CogVideoXUpBlock3D",) * 2,
            block_out_channels=(8, 8), latent_channels=LATENT, layers_per_block=1, norm_num_groups=2,
            temporal_compression_ratio=2, sample_height=16, sample_width=16,
        ),
        transformer=CogVideoXTransformer3DModel(
            num_attention_heads=2, attention_head_dim=16, in_channels=LATENT, out_channels=LATENT, time_embed_dim=16,
            text_embed_dim=parts.WIDTH, num_layers=2, sample_width=8, sample_height=8, sample_frames=5,
            temporal_compression_ratio=2, max_text_seq_length=16, use_rotary_positional_embeddings=True,
        ),
        scheduler=CogVideoXDDIMScheduler(),
    )  # fmt: skip


def ltx() -> Any:
    return LTXPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=AutoencoderKLLTXVideo(
            latent_channels=LATENT, block_out_channels=(8, 8), down_block_types=("LTXVideoDownBlock3D",) * 2,
            decoder_block_out_channels=(8, 8), layers_per_block=(1, 1, 1), decoder_layers_per_block=(1, 1, 1),
            spatio_temporal_scaling=(True, False), decoder_spatio_temporal_scaling=(True, False),
            decoder_inject_noise=(False,) * 3, downsample_type=("conv",) * 2, upsample_residual=(False,) * 2,
            upsample_factor=(1, 1), patch_size=2,
        ),
        text_encoder=parts.t5(),
        tokenizer=parts.words(),
        transformer=LTXVideoTransformer3DModel(
            in_channels=LATENT, out_channels=LATENT, num_attention_heads=2, attention_head_dim=16,
            cross_attention_dim=32, num_layers=2, caption_channels=parts.WIDTH,
        ),
    )  # fmt: skip


def animatediff() -> Any:
    wide = (16,)
    return AnimateDiffPipeline(
        vae=parts.vae(),
        text_encoder=parts.clip_text(),
        tokenizer=parts.clip_words(),
        unet=UNet2DConditionModel(
            sample_size=8, block_out_channels=wide, layers_per_block=1, norm_num_groups=8,
            down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
            cross_attention_dim=parts.WIDTH, attention_head_dim=2,
        ),
        motion_adapter=MotionAdapter(
            block_out_channels=wide, motion_layers_per_block=1, motion_num_attention_heads=2,
            motion_norm_num_groups=8, motion_max_seq_length=8,
        ),
        scheduler=DDIMScheduler(beta_schedule="linear", clip_sample=False),
    )  # fmt: skip


def mochi() -> Any:
    mean, std = [0.0] * 12, [1.0] * 12  # the pipeline takes no other number of channels
    return MochiPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=AutoencoderKLMochi(
            encoder_block_out_channels=(32,) * 4, decoder_block_out_channels=(32,) * 4, layers_per_block=(1,) * 5,
            add_attention_block=(False,) * 5, latents_mean=mean, latents_std=std,
        ),
        text_encoder=parts.t5(),
        tokenizer=parts.words(),
        transformer=MochiTransformer3DModel(
            num_attention_heads=2, attention_head_dim=16, num_layers=2, pooled_projection_dim=16,
            text_embed_dim=parts.WIDTH, time_embed_dim=16, max_sequence_length=16,
        ),
    )  # fmt: skip


def hunyuan_video() -> Any:
    """Distilled: guidance is an input of the transformer."""
    words = parts.words()
    return HunyuanVideoPipeline(
        text_encoder=LlamaModel(
            LlamaConfig(
                vocab_size=len(words), hidden_size=parts.WIDTH, intermediate_size=2 * parts.WIDTH, num_hidden_layers=3,
                num_attention_heads=2, num_key_value_heads=1, pad_token_id=0, bos_token_id=3, eos_token_id=1,
            )
        ),
        tokenizer=words,
        transformer=HunyuanVideoTransformer3DModel(
            in_channels=LATENT, out_channels=LATENT, num_attention_heads=2, attention_head_dim=16, num_layers=1,
            num_single_layers=1, num_refiner_layers=1, text_embed_dim=parts.WIDTH,
            pooled_projection_dim=parts.WIDTH, rope_axes_dim=(4, 6, 6),
        ),
        vae=AutoencoderKLHunyuanVideo(
            latent_channels=LATENT, down_block_types=("HunyuanVideoDownBlock3D",) * 3,
            up_block_types=("HunyuanVideoUpBlock3D",) * 3, block_out_channels=(8,) * 3, layers_per_block=1,
            norm_num_groups=4, spatial_compression_ratio=4, temporal_compression_ratio=4,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        text_encoder_2=parts.clip_text(max_position_embeddings=77),
        tokenizer_2=parts.clip_words(),
    )  # fmt: skip


TEMPLATE = {"prompt_template": {"template": "<user> {}", "crop_start": 1}}
VIDEOS: tuple[Animal, ...] = (
    Animal("WanPipeline", "video", wan, ("transformer", "transformer_2"), Generation(4, 3.0, options=SHORT)),
    Animal("CogVideoXPipeline", "video", cogvideox, ("transformer",), Generation(2, 3.0, options=SHORT)),
    Animal("LTXPipeline", "video", ltx, ("transformer",), Generation(2, 3.0, options=LARGER)),
    Animal("AnimateDiffPipeline", "video", animatediff, ("unet",), Generation(2, 3.0, options={"num_frames": 4})),
    Animal("MochiPipeline", "video", mochi, ("transformer",), Generation(2, 3.0, options=LARGER | {"num_frames": 7})),
    Animal("HunyuanVideoPipeline", "video", hunyuan_video, ("transformer",), Generation(2, options=SHORT | TEMPLATE)),
)
