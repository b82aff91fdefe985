"""Classes around the U-Net of Stable Diffusion 1 and 2, for pictures."""

from __future__ import annotations

from typing import Any

import torch
from benchmarks.classes.build import (
    ALONE,
    CONTROLLED,
    MASKED,
    PICTURES,
    SIDE,
    SIZE,
    given,
    line,
)
from diffusers import (
    ControlNetModel,
    ControlNetXSAdapter,
    DDIMInverseScheduler,
    DDIMScheduler,
    DDPMScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    T2IAdapter,
)
from diffusers.pipelines.deprecated.paint_by_example import PaintByExampleImageEncoder
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
from tests.zoo import parts, unets
from tests.zoo.animal import PROMPTS, Animal
from transformers import CLIPVisionConfig, DPTConfig, DPTForDepthEstimation, DPTImageProcessor

WIDTH = parts.WIDTH


def stable() -> dict[str, Any]:
    return {"unet": unets.unet(), **unets._stable()}


def control(kit: Any) -> ControlNetModel:
    return ControlNetModel.from_unet(kit["unet"], conditioning_embedding_out_channels=(8, 8))


def control_xs(kit: Any) -> ControlNetXSAdapter:
    return ControlNetXSAdapter.from_unet(
        kit["unet"],
        num_attention_heads=2,
        block_out_channels=[8, 16],
        conditioning_embedding_out_channels=(8, 8),
        learn_time_embedding=True,
    )


def deeper() -> dict[str, Any]:
    """Two layers in each block, as a ControlNet-XS has."""
    return stable() | {"unet": unets.unet(layers_per_block=2)}


def adapted() -> dict[str, Any]:
    down, up = ("CrossAttnDownBlock2D", "DownBlock2D"), ("UpBlock2D", "CrossAttnUpBlock2D")
    net = unets.unet(down_block_types=down, up_block_types=up)
    return {"unet": net, "adapter": T2IAdapter(3, [16, 32], 1, 2, "full_adapter"), **unets._stable()}


def lcm() -> dict[str, Any]:
    return stable() | {"unet": unets.unet(time_cond_proj_dim=16), "scheduler": LCMScheduler(clip_sample=False)}


def unclip() -> dict[str, Any]:
    return {
        "feature_extractor": parts.clip_pictures(), "image_encoder": parts.clip_vision(),
        "image_normalizer": StableUnCLIPImageNormalizer(embedding_dim=WIDTH),
        "image_noising_scheduler": DDPMScheduler(beta_schedule="squaredcos_cap_v2"), "tokenizer": parts.clip_words(),
        "text_encoder": parts.clip_text(), "vae": parts.vae(),
        "unet": unets.unet(class_embed_type="projection", projection_class_embeddings_input_dim=2 * WIDTH),
        "scheduler": DDIMScheduler(steps_offset=1, clip_sample=False),
    }  # fmt: skip


def seeing() -> dict[str, Any]:
    return stable() | {"image_encoder": parts.clip_vision(), "feature_extractor": parts.clip_pictures()}


def depth() -> dict[str, Any]:
    config = DPTConfig(
        image_size=SIDE, patch_size=4, hidden_size=WIDTH, num_hidden_layers=4, num_attention_heads=2,
        intermediate_size=WIDTH, backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8, reassemble_factors=[4, 2, 1, 0.5], is_hybrid=False,
    )  # fmt: skip
    eyes = DPTImageProcessor(size={"height": SIDE, "width": SIDE}, ensure_multiple_of=4)
    return stable() | {
        "unet": unets.unet(in_channels=5), "depth_estimator": DPTForDepthEstimation(config), "feature_extractor": eyes
    }  # fmt: skip


def marigold(pictures: int = 1) -> dict[str, Any]:
    return stable() | {
        "unet": unets.unet(in_channels=4 + 4 * pictures, out_channels=4 * pictures),
        "scheduler": DDIMScheduler(clip_sample=False), "default_denoising_steps": 2,
        "default_processing_resolution": 0,
    }  # fmt: skip


def upscale() -> dict[str, Any]:
    return stable() | {
        "unet": unets.unet(in_channels=7, num_class_embeds=1000, attention_head_dim=8),
        "low_res_scheduler": DDPMScheduler(), "max_noise_level": 350,
    }  # fmt: skip


def latent_upscale() -> dict[str, Any]:
    net = unets.unet(
        in_channels=8, out_channels=5, time_cond_proj_dim=128 + WIDTH, cross_attention_dim=WIDTH,
        timestep_post_act=None, conv_in_kernel=1, conv_out_kernel=1, resnet_time_scale_shift="scale_shift",
        time_embedding_type="fourier", only_cross_attention=False, mid_block_type=None, act_fn="gelu",
        down_block_types=("KDownBlock2D", *("KCrossAttnDownBlock2D",) * 3), attention_head_dim=8,
        up_block_types=(*("KCrossAttnUpBlock2D",) * 3, "KUpBlock2D"), block_out_channels=(32, 32, 64, 64),
    )  # fmt: skip
    return stable() | {"unet": net, "scheduler": EulerDiscreteScheduler(prediction_type="sample")}


def exemplary() -> dict[str, Any]:
    config = CLIPVisionConfig(
        hidden_size=WIDTH, intermediate_size=WIDTH, num_hidden_layers=1, num_attention_heads=2, image_size=SIDE,
        patch_size=8, projection_dim=WIDTH,
    )  # fmt: skip
    return seeing() | {"unet": unets.unet(in_channels=9), "image_encoder": PaintByExampleImageEncoder(config, WIDTH)}


def gligen() -> dict[str, Any]:
    return stable() | {"unet": unets.unet(attention_type="gated")}


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def shown(**more: Any) -> tuple[dict[str, Any], ...]:
    return tuple(row | more for row in PICTURES)


UNET = "U-Net"
HALF = given(4, strength=0.5)
STABLE: tuple[Animal, ...] = (
    line("StableDiffusionImg2ImgPipeline", UNET, stable, PICTURES, HALF),
    line("StableDiffusionControlNetImg2ImgPipeline", UNET, stable, CONTROLLED, HALF, controlnet=control),
    line("StableDiffusionControlNetInpaintPipeline", UNET, stable,
         tuple(row | {"control_image": parts.picture(0)} for row in MASKED), given(2, **SIZE), controlnet=control),
    line("StableDiffusionControlNetXSPipeline", UNET, deeper, PICTURES, controlnet=control_xs),
    line("StableDiffusionPAGPipeline", UNET, stable, pag_applied_layers=["mid"]),
    line("StableDiffusionPAGImg2ImgPipeline", UNET, stable, PICTURES, HALF, pag_applied_layers=["mid"]),
    line("StableDiffusionPAGInpaintPipeline", UNET, lambda: stable() | {"unet": unets.unet(in_channels=9)}, MASKED,
         given(2, **SIZE), pag_applied_layers=["mid"]),
    line("StableDiffusionControlNetPAGPipeline", UNET, stable, PICTURES, controlnet=control,
         pag_applied_layers=["mid"]),
    line("StableDiffusionControlNetPAGInpaintPipeline", UNET, stable,
         tuple(row | {"control_image": parts.picture(0)} for row in MASKED), given(2, **SIZE), controlnet=control,
         pag_applied_layers=["mid"]),
    line("StableDiffusionAdapterPipeline", UNET, adapted, PICTURES),
    line("StableDiffusionUpscalePipeline", UNET, upscale, PICTURES),
    line("StableDiffusionLatentUpscalePipeline", UNET, latent_upscale, PICTURES),
    line("StableDiffusionInstructPix2PixPipeline", UNET, lambda: stable() | {"unet": unets.unet(in_channels=8)},
         PICTURES),
    line("StableDiffusionDepth2ImgPipeline", UNET, depth, PICTURES, HALF),
    line("StableDiffusionImageVariationPipeline", UNET, seeing, ALONE),
    line("StableDiffusionSAGPipeline", UNET, stable, generation=given(2, sag_scale=0.5)),
    line("StableDiffusionPanoramaPipeline", UNET, stable, generation=given(2, height=64, width=64)),
    line("StableDiffusionLDM3DPipeline", UNET, lambda: stable() | {"vae": parts.vae(in_channels=6, out_channels=6)}),
    line("StableDiffusionGLIGENPipeline", UNET, gligen, tuple(
        {"prompt": prompt, "gligen_phrases": ["a circle"], "gligen_boxes": [[0.1, 0.6, 0.4, 0.9]]} for prompt in PROMPTS
    )),
    line("StableDiffusionDiffEditPipeline", UNET, stable, tuple(
        {"prompt": prompt, "mask_image": parts.mask(), "image_latents": noise(1, 4, SIDE, SIDE)} for prompt in PROMPTS
    ), inverse_scheduler=DDIMInverseScheduler()),
    line("StableDiffusionAttendAndExcitePipeline", UNET, stable,
         tuple({"prompt": prompt, "token_indices": [2, 4]} for prompt in PROMPTS),
         given(2, max_iter_to_alter=1, attn_res=(4, 4))),
    line("CycleDiffusionPipeline", UNET, stable, shown(source_prompt="a large blue square"), HALF,
         scheduler=DDIMScheduler(clip_sample=False, set_alpha_to_one=False)),
    line("SemanticStableDiffusionPipeline", UNET, stable),
    line("TextToVideoZeroPipeline", UNET, stable, generation=given(4, video_length=2, t0=1, t1=2)),
    line("LatentConsistencyModelPipeline", UNET, lcm),
    line("LatentConsistencyModelImg2ImgPipeline", UNET, lcm, PICTURES, HALF),
    line("StableUnCLIPImg2ImgPipeline", UNET, unclip, PICTURES),
    line("PaintByExamplePipeline", UNET, exemplary,
         tuple({"image": parts.picture(0), "example_image": parts.picture(i), "mask_image": parts.mask()}
               for i in range(2)), given(2, **SIZE)),
    line("MarigoldDepthPipeline", UNET, marigold, ALONE, given(2, None), prediction_type="depth"),
    line("MarigoldNormalsPipeline", UNET, marigold, ALONE, given(2, None), prediction_type="normals"),
    line("MarigoldIntrinsicsPipeline", UNET, lambda: marigold(2), ALONE, given(2, None), prediction_type="intrinsics",
         target_properties={"target_names": ["albedo", "roughness"]}),
)  # fmt: skip
