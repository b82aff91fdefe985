"""Classes for videos and for views of objects."""

from __future__ import annotations

from typing import Any

import diffusers
from benchmarks.classes.build import ALONE, PICTURES, SIDE, SIZE, filmed, given, line
from benchmarks.classes.stable import control, seeing, stable
from diffusers.guiders import ClassifierFreeGuidance
from diffusers.models.unets import I2VGenXLUNet
from diffusers.pipelines.shap_e import ShapERenderer
from tests.planner.pipelines.test_called_classes import vace
from tests.zoo import parts, unets, videos
from tests.zoo.animal import PROMPTS, Animal
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    Qwen2_5_VLTextConfig,
    Qwen2_5_VLTextModel,
)

WIDTH = parts.WIDTH
SHORT = videos.SHORT
FRAMES = {"height": SIDE, "width": SIDE, "num_frames": 5}


def moving() -> dict[str, Any]:
    return dict(videos.animatediff().components)


def moving_xl() -> dict[str, Any]:
    kit = unets._xl()
    adapter = diffusers.MotionAdapter(
        block_out_channels=(16, 32), motion_layers_per_block=1, motion_num_attention_heads=2,
        motion_norm_num_groups=8, motion_max_seq_length=8, use_motion_mid_block=False,
    )  # fmt: skip
    return kit | {"motion_adapter": adapter, "scheduler": diffusers.DDIMScheduler(clip_sample=False)}


def motion_unet(kit: Any) -> Any:
    return unets.unet(
        block_out_channels=(16,), down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), in_channels=4
    )


def sparse(kit: Any) -> Any:
    return diffusers.SparseControlNetModel(
        block_out_channels=(16,), layers_per_block=1, down_block_types=("DownBlockMotion",), norm_num_groups=8,
        cross_attention_dim=WIDTH, conditioning_channels=4, conditioning_embedding_out_channels=(8, 8),
        motion_num_attention_heads=2, motion_max_seq_length=8, transformer_layers_per_block=1,
        num_attention_heads=2, use_simplified_condition_embedding=True,
    )  # fmt: skip


def wan_pictures() -> dict[str, Any]:
    """Wan 2.1 from a picture."""
    kit = dict(videos.wan().components) | {"transformer_2": None, "boundary_ratio": None}
    rate = 2  # frames of a latent
    return kit | {
        "image_encoder": CLIPVisionModel(parts.clip_vision().config), "image_processor": parts.clip_pictures(),
        "transformer": diffusers.WanTransformer3DModel(
            num_attention_heads=2, attention_head_dim=12, in_channels=2 * videos.LATENT + rate,
            out_channels=videos.LATENT, text_dim=WIDTH, freq_dim=32, ffn_dim=32, num_layers=2, rope_max_seq_len=32,
            image_dim=WIDTH,
        ),
    }  # fmt: skip


def wan_one() -> dict[str, Any]:
    return dict(videos.wan().components)


def skyreels() -> dict[str, Any]:
    return wan_one() | {
        "transformer": diffusers.SkyReelsV2Transformer3DModel(
            num_attention_heads=2, attention_head_dim=12, in_channels=videos.LATENT, out_channels=videos.LATENT,
            text_dim=WIDTH, freq_dim=32, ffn_dim=32, num_layers=2, rope_max_seq_len=32,
        )
    }  # fmt: skip


def svd() -> dict[str, Any]:
    return seeing() | {
        "unet": diffusers.UNetSpatioTemporalConditionModel(
            block_out_channels=(32, 32), layers_per_block=1, sample_size=8, in_channels=8, out_channels=4,
            down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
            up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"), cross_attention_dim=WIDTH,
            num_attention_heads=2, projection_class_embeddings_input_dim=24, addition_time_embed_dim=8,
        ),
        "image_encoder": CLIPVisionModelWithProjection(
            CLIPVisionConfig(hidden_size=WIDTH, intermediate_size=WIDTH, num_hidden_layers=1, num_attention_heads=2,
                             image_size=224, patch_size=112, projection_dim=WIDTH)
        ),
        "vae": diffusers.AutoencoderKLTemporalDecoder(
            block_out_channels=[32, 32], down_block_types=["DownEncoderBlock2D"] * 2, latent_channels=4,
            layers_per_block=1,
        ),
        "scheduler": diffusers.EulerDiscreteScheduler(
            prediction_type="v_prediction", sigma_max=700.0, sigma_min=0.002, timestep_type="continuous",
            use_karras_sigmas=True,
        ),
    }  # fmt: skip


def i2vgen() -> dict[str, Any]:
    net = I2VGenXLUNet(
        block_out_channels=(8, 16), layers_per_block=1, sample_size=8, norm_num_groups=4, cross_attention_dim=WIDTH,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"), attention_head_dim=4,
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
    )  # fmt: skip
    return seeing() | {"unet": net, "scheduler": diffusers.DDIMScheduler(clip_sample=False, set_alpha_to_one=False)}


def text_to_video() -> dict[str, Any]:
    net = diffusers.UNet3DConditionModel(
        block_out_channels=(8, 16), layers_per_block=1, sample_size=8, norm_num_groups=4, cross_attention_dim=WIDTH,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"), attention_head_dim=4,
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
    )  # fmt: skip
    return stable() | {"unet": net}


def hunyuan() -> dict[str, Any]:
    ropes = {"mrope_section": [2, 3, 3], "rope_type": "default", "rope_theta": 10000.0}
    texts = Qwen2_5_VLTextConfig(
        vocab_size=len(parts.words()), hidden_size=WIDTH, intermediate_size=WIDTH, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, rope_parameters=ropes, pad_token_id=0,
    )  # fmt: skip
    return {
        "text_encoder": Qwen2_5_VLTextModel(texts), "tokenizer": parts.words(),
        "text_encoder_2": parts.t5(), "tokenizer_2": parts.words(), "guider": ClassifierFreeGuidance(2.0),
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
        "transformer": diffusers.HunyuanVideo15Transformer3DModel(
            in_channels=9, out_channels=4, num_attention_heads=2, attention_head_dim=8, num_layers=1,
            num_refiner_layers=1, mlp_ratio=2.0, patch_size=1, patch_size_t=1, text_embed_dim=WIDTH,
            text_embed_2_dim=WIDTH, image_embed_dim=12, rope_axes_dim=(2, 2, 4), target_size=16, task_type="t2v",
        ),
        "vae": diffusers.AutoencoderKLHunyuanVideo15(
            latent_channels=4, block_out_channels=(16, 16), layers_per_block=1, spatial_compression_ratio=4,
            temporal_compression_ratio=2, downsample_match_channel=False, upsample_match_channel=False,
        ),
    }  # fmt: skip


def shap_e() -> dict[str, Any]:
    wide = 8
    return {
        "prior": diffusers.PriorTransformer(
            num_attention_heads=2, attention_head_dim=16, embedding_dim=16, num_embeddings=wide * 4,
            embedding_proj_dim=WIDTH, time_embed_dim=64, num_layers=1, clip_embed_dim=32, additional_embeddings=0,
            time_embed_act_fn="gelu", norm_in_type="layer", encoder_hid_proj_type=None, added_emb_type=None,
        ),
        "text_encoder": parts.clip_text(projected=True), "tokenizer": parts.clip_words(),
        "scheduler": diffusers.HeunDiscreteScheduler(
            beta_schedule="exp", num_train_timesteps=1024, prediction_type="sample", use_karras_sigmas=True,
            clip_sample=True,
        ),
        "shap_e_renderer": ShapERenderer(
            param_shapes=((wide, 93), (wide, wide), (wide, wide), (wide, wide)), d_latent=16, d_hidden=wide,
            n_output=12, background=(0.1, 0.1, 0.1),
        ),
    }  # fmt: skip


def lengths() -> dict[str, Any]:
    """Times of a schedule that the size of a video does not shift."""
    return dict(videos.ltx().components) | {"scheduler": diffusers.FlowMatchEulerDiscreteScheduler()}


VIDEO = "video"
FILMS: tuple[Animal, ...] = (
    Animal("WanVACEPipeline", VIDEO, vace, ("transformer",), given(1, 3.0, **SHORT), filmed(5)),
    line("WanImageToVideoPipeline", VIDEO, wan_pictures, PICTURES, given(2, **SHORT)),
    line("WanVideoToVideoPipeline", VIDEO, wan_one, filmed(5), given(4, strength=0.5, **SIZE)),
    line("SkyReelsV2Pipeline", VIDEO, skyreels, generation=given(2, **SHORT)),
    line("SkyReelsV2DiffusionForcingPipeline", VIDEO, skyreels,
         generation=given(2, ar_step=0, base_num_frames=5, **SHORT)),
    line("CogVideoXVideoToVideoPipeline", VIDEO, lambda: dict(videos.cogvideox().components), filmed(5),
         given(4, strength=0.5, max_sequence_length=16, **SIZE)),
    line("LTXConditionPipeline", VIDEO, lengths, PICTURES,
         given(2, **videos.LARGER)),
    line("LTXImageToVideoPipeline", VIDEO, lambda: dict(videos.ltx().components), PICTURES,
         given(2, **videos.LARGER)),
    line("AnimateDiffVideoToVideoPipeline", VIDEO, moving, filmed(4), given(4, strength=0.5)),
    line("AnimateDiffControlNetPipeline", VIDEO, moving, filmed(4, "conditioning_frames"), given(2, num_frames=4),
         unet=motion_unet, controlnet=lambda kit: control(kit)),
    line("AnimateDiffSparseControlNetPipeline", VIDEO, moving,
         tuple({"prompt": prompt, "conditioning_frames": [parts.picture(i)]} for i, prompt in enumerate(PROMPTS)),
         given(2, num_frames=4), controlnet=sparse),
    line("AnimateDiffPAGPipeline", VIDEO, moving, generation=given(2, num_frames=4), pag_applied_layers=["mid"]),
    line("AnimateDiffSDXLPipeline", VIDEO, moving_xl, generation=given(2, num_frames=4)),
    line("PIAPipeline", VIDEO, moving, PICTURES, given(2, num_frames=4),
         unet=lambda kit: unets.unet(block_out_channels=(16,), in_channels=9, down_block_types=("DownBlock2D",),
                                     up_block_types=("UpBlock2D",))),
    line("StableVideoDiffusionPipeline", VIDEO, svd, ALONE, given(2, None, num_frames=2, decode_chunk_size=2, **SIZE)),
    line("I2VGenXLPipeline", VIDEO, i2vgen, PICTURES, given(2, num_frames=4, clip_skip=None, **SIZE)),
    line("TextToVideoSDPipeline", VIDEO, text_to_video, generation=given(2, num_frames=4, **SIZE)),
    line("VideoToVideoSDPipeline", VIDEO, text_to_video, filmed(4), given(4, strength=0.5)),
    line("HunyuanVideo15Pipeline", VIDEO, hunyuan, generation=given(2, None, **FRAMES)),
    line("ShapEPipeline", "views", shap_e, generation=given(2, output_type="latent")),
    line("ShapEImg2ImgPipeline", "views", shap_e, ALONE, given(2, output_type="latent"),
         image_encoder=CLIPVisionModel(parts.clip_vision().config), image_processor=parts.clip_pictures()),
)  # fmt: skip
