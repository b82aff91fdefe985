"""Pipelines around a U-Net."""

from __future__ import annotations

from typing import Any

import diffusers
from diffusers import (
    ControlNetModel,
    DDIMScheduler,
    DDPMScheduler,
    EulerDiscreteScheduler,
    PriorTransformer,
    UnCLIPScheduler,
    UNet2DConditionModel,
    UNet2DModel,
    VQModel,
)
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer

from bitplan.planner.pipelines.generation import Generation
from tests import tiny
from tests.zoo import parts
from tests.zoo.animal import PROMPTS, Animal

WIDTH, SIDE = parts.WIDTH, tiny.SIDE
TIME_IDS = 8  # numbers that a size of SDXL is embedded in


def unet(**options: Any) -> UNet2DConditionModel:
    """Two resolutions, the lower one with attention."""
    return UNet2DConditionModel(
        **{"sample_size": SIDE // 2, "block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 8,
           "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "mid_block_type": "UNetMidBlock2DCrossAttn",
           "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "cross_attention_dim": WIDTH,
           "attention_head_dim": 2} | options
    )  # fmt: skip


def _stable() -> dict[str, Any]:
    """Returns what every Stable Diffusion 1 has beside its U-Net."""
    return {
        "vae": parts.vae(), "text_encoder": parts.clip_text(), "tokenizer": parts.clip_words(),
        "scheduler": DDIMScheduler(steps_offset=1, clip_sample=False), "safety_checker": None,
        "feature_extractor": None, "requires_safety_checker": False,
    }  # fmt: skip


def stable_diffusion() -> Any:
    return diffusers.StableDiffusionPipeline(unet=unet(), **_stable())


def inpaint() -> Any:
    """Its U-Net also reads the mask and the rest of the picture."""
    return diffusers.StableDiffusionInpaintPipeline(unet=unet(in_channels=9), **_stable())


def controlled() -> Any:
    net = unet()
    control = ControlNetModel.from_unet(net, conditioning_embedding_out_channels=(8, 8))
    return diffusers.StableDiffusionControlNetPipeline(unet=net, controlnet=control, **_stable())


def _xl() -> dict[str, Any]:
    return {
        "vae": parts.vae(force_upcast=False),
        "text_encoder": parts.clip_text(), "tokenizer": parts.clip_words(),
        "text_encoder_2": parts.clip_text(projected=True), "tokenizer_2": parts.clip_words(),
        "unet": unet(
            cross_attention_dim=2 * WIDTH, addition_embed_type="text_time", addition_time_embed_dim=TIME_IDS,
            projection_class_embeddings_input_dim=6 * TIME_IDS + WIDTH, use_linear_projection=True,
            transformer_layers_per_block=(1, 2),
        ),
        "scheduler": EulerDiscreteScheduler(timestep_spacing="leading", steps_offset=1), "add_watermarker": False,
    }  # fmt: skip


def xl() -> Any:
    return diffusers.StableDiffusionXLPipeline(**_xl())


def xl_from_image() -> Any:
    return diffusers.StableDiffusionXLImg2ImgPipeline(**_xl())


def _prior() -> PriorTransformer:
    """Predicts image embeddings from texts."""
    return PriorTransformer(
        num_attention_heads=2, attention_head_dim=16, num_layers=1, embedding_dim=WIDTH,
        num_embeddings=parts.clip_words().model_max_length, additional_embeddings=4,
    )  # fmt: skip


def _prior_scheduler() -> UnCLIPScheduler:
    return UnCLIPScheduler(
        variance_type="fixed_small_log", prediction_type="sample", num_train_timesteps=1000, clip_sample_range=5.0
    )


def kandinsky() -> Any:
    net = unet(
        out_channels=8, encoder_hid_dim=WIDTH, encoder_hid_dim_type="image_proj", addition_embed_type="image",
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn", class_embed_type=None,
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"), resnet_time_scale_shift="scale_shift",
    )  # fmt: skip
    movq = VQModel(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=8,
        block_out_channels=(32, 32), latent_channels=4, vq_embed_dim=4, num_vq_embeddings=16, norm_type="spatial",
        mid_block_add_attention=False,
    )  # fmt: skip
    return diffusers.KandinskyV22CombinedPipeline(
        unet=net, movq=movq,
        scheduler=DDIMScheduler(
            beta_schedule="linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, set_alpha_to_one=False,
            steps_offset=1, prediction_type="epsilon", thresholding=False,
        ),
        prior_prior=_prior(), prior_image_encoder=parts.clip_vision(), prior_scheduler=_prior_scheduler(),
        prior_text_encoder=parts.clip_text(projected=True), prior_tokenizer=parts.clip_words(),
        prior_image_processor=parts.clip_pictures(),
    )  # fmt: skip


def unclip() -> Any:
    return diffusers.StableUnCLIPPipeline(
        prior_tokenizer=parts.clip_words(), prior_text_encoder=parts.clip_text(projected=True), prior=_prior(),
        prior_scheduler=_prior_scheduler(), image_normalizer=StableUnCLIPImageNormalizer(embedding_dim=WIDTH),
        image_noising_scheduler=DDPMScheduler(beta_schedule="squaredcos_cap_v2"), tokenizer=parts.clip_words(),
        text_encoder=parts.clip_text(),
        unet=unet(class_embed_type="projection", projection_class_embeddings_input_dim=2 * WIDTH),
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False), vae=parts.vae(),
    )  # fmt: skip


def unconditional() -> Any:
    net = UNet2DModel(
        sample_size=SIDE, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    return diffusers.DDPMPipeline(net, DDPMScheduler())


SIZE = {"height": SIDE, "width": SIDE}
PICTURES = tuple({"prompt": prompt, "image": parts.picture(i)} for i, prompt in enumerate(PROMPTS))
MASKED = tuple(row | {"mask_image": parts.mask()} for row in PICTURES)
PRIOR = SIZE | {"prior_num_inference_steps": 2}
TWO = Generation(2, 2.0)

UNETS: tuple[Animal, ...] = (
    Animal("StableDiffusionPipeline", "U-Net", stable_diffusion, ("unet",), TWO),
    Animal("StableDiffusionXLPipeline", "U-Net", xl, ("unet",), TWO),
    Animal("StableDiffusionXLImg2ImgPipeline", "U-Net", xl_from_image, ("unet",),
           Generation(4, 2.0, options={"strength": 0.5}), PICTURES),
    Animal("StableDiffusionInpaintPipeline", "U-Net", inpaint, ("unet",), Generation(2, 2.0, options=SIZE), MASKED),
    Animal("StableDiffusionControlNetPipeline", "U-Net", controlled, ("controlnet", "unet"), TWO, PICTURES),
    Animal("KandinskyV22CombinedPipeline", "U-Net", kandinsky, ("prior_prior", "unet"),
           Generation(2, 2.0, options=PRIOR)),
    Animal("StableUnCLIPPipeline", "U-Net", unclip, ("prior", "unet"), Generation(2, 2.0, options=PRIOR)),
    Animal("DDPMPipeline", "U-Net", unconditional, ("unet",), Generation(2), ({}, {})),
)  # fmt: skip
