"""Classes around transformers, priors, autoencoders of tokens, and unconditional ones."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import diffusers
import torch
from benchmarks.classes.build import ALONE, CONTROLLED, MASKED, PICTURES, SIDE, SIZE, given, line
from tests.planner.pipelines.test_called_classes import amused
from tests.zoo import audios, dits, parts, unets
from tests.zoo.animal import PROMPTS, Animal
from transformers import Qwen3ForCausalLM

WIDTH = parts.WIDTH


def of(make: Any) -> Any:
    """The parts of a pipeline of the zoo."""
    return lambda: dict(make().components) | {"requires_safety_checker": False}


def sd3_control(kit: Any) -> Any:
    """Of a copy, into whose config `from_transformer` writes."""
    return diffusers.SD3ControlNetModel.from_transformer(
        deepcopy(kit["transformer"]), num_layers=1, num_extra_conditioning_channels=0
    )


def sixteen() -> dict[str, Any]:
    """With as many channels of latents as its inpainting asks for."""
    kit = of(dits.stable_diffusion_3)()
    net = kit["transformer"]
    return kit | {
        "transformer": type(net).from_config(net.config, in_channels=16, out_channels=16),
        "vae": parts.vae(16, shift_factor=0.06, use_quant_conv=False),
    }


def flux_control(kit: Any) -> Any:
    return diffusers.FluxControlNetModel.from_transformer(
        kit["transformer"], num_layers=1, num_single_layers=1, num_attention_heads=2, attention_head_dim=16
    )


def flux_channels(channels: int) -> Any:
    def made(kit: Any) -> Any:
        return diffusers.FluxTransformer2DModel.from_config(
            kit["transformer"].config, in_channels=channels, out_channels=16
        )

    return made


def klein() -> dict[str, Any]:
    """Flux 2, whose text encoder gives three of its hidden states, one behind the other."""
    return {
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), "tokenizer": parts.words(),
        "vae": diffusers.AutoencoderKLFlux2(
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 16), norm_num_groups=4, latent_channels=4, sample_size=SIDE, layers_per_block=1,
        ),
        "text_encoder": Qwen3ForCausalLM(parts.qwen().config),
        "transformer": diffusers.Flux2Transformer2DModel(
            **dits.HEADS, in_channels=16, num_layers=1, num_single_layers=2, joint_attention_dim=3 * WIDTH,
            timestep_guidance_channels=16, axes_dims_rope=(4, 4, 4, 4), guidance_embeds=False,
        ),
    }  # fmt: skip


def qwen_control(kit: Any) -> Any:
    return diffusers.QwenImageControlNetModel.from_transformer(kit["transformer"], num_layers=1, **dits.HEADS)


def kandinsky() -> dict[str, Any]:
    return {key.removeprefix("prior_") if key.startswith("prior_prior") or key in PRIOR else key: part
            for key, part in unets.kandinsky().components.items()}  # fmt: skip


PRIOR = ("prior_image_encoder", "prior_text_encoder", "prior_tokenizer", "prior_image_processor")


def prior() -> dict[str, Any]:
    return kandinsky() | {"scheduler": unets._prior_scheduler()}


def plain() -> dict[str, Any]:
    return {"unet": unets.unconditional().unet, "scheduler": diffusers.DDIMScheduler()}


def consistent() -> dict[str, Any]:
    net = diffusers.UNet2DModel(
        sample_size=SIDE, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    return {"unet": net, "scheduler": diffusers.CMStochasticIterativeScheduler(num_train_timesteps=40)}


def sharper() -> dict[str, Any]:
    net = diffusers.UNet2DModel(
        sample_size=SIDE, block_out_channels=(8, 16), layers_per_block=1, in_channels=6, out_channels=3,
        norm_num_groups=4, down_block_types=("DownBlock2D", "AttnDownBlock2D"), attention_head_dim=8,
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    tokens = diffusers.VQModel(
        block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2, norm_num_groups=4,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=3, num_vq_embeddings=16,
    )  # fmt: skip
    return {"vqvae": tokens, "unet": net, "scheduler": diffusers.DDIMScheduler()}


def dance() -> dict[str, Any]:
    net = diffusers.UNet1DModel(
        block_out_channels=(32, 64), extra_in_channels=64, sample_size=64, sample_rate=16, in_channels=2,
        out_channels=2, flip_sin_to_cos=True, use_timestep_embedding=False, time_embedding_type="fourier",
        mid_block_type="UNetMidBlock1D", down_block_types=("DownBlock1DNoSkip", "AttnDownBlock1D"),
        up_block_types=("AttnUpBlock1D", "UpBlock1DNoSkip"),
    )  # fmt: skip
    return {"unet": net, "scheduler": diffusers.IPNDMScheduler()}


def pixels() -> dict[str, Any]:
    """DeepFloyd IF, which paints pixels."""
    net = unets.unet(
        sample_size=SIDE, in_channels=3, out_channels=6, encoder_hid_dim=WIDTH, cross_attention_dim=WIDTH,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn", addition_embed_type="text", addition_embed_type_num_heads=2,
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"), resnet_time_scale_shift="scale_shift",
    )  # fmt: skip
    return {
        "tokenizer": parts.words(77), "text_encoder": parts.t5(), "unet": net, "watermarker": None,
        "scheduler": diffusers.DDPMScheduler(variance_type="learned_range", thresholding=True, clip_sample=True),
        "requires_safety_checker": False,
    }  # fmt: skip


DIT = "DiT"
FOUR = given(4, strength=0.5, **dits.READ)
EMBEDDED = tuple(
    {"image_embeds": torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(i)),
     "negative_image_embeds": torch.zeros(1, WIDTH)} for i in range(2)
)  # fmt: skip
OTHERS: tuple[Animal, ...] = (
    line("StableDiffusion3Img2ImgPipeline", DIT, of(dits.stable_diffusion_3), PICTURES, FOUR),
    line("StableDiffusion3InpaintPipeline", DIT, sixteen, MASKED, FOUR),
    line("StableDiffusion3PAGPipeline", DIT, of(dits.stable_diffusion_3), generation=given(2, **dits.READ),
         pag_applied_layers=["blocks.1"]),
    line("StableDiffusion3PAGImg2ImgPipeline", DIT, of(dits.stable_diffusion_3), PICTURES, FOUR,
         pag_applied_layers=["blocks.1"]),
    line("StableDiffusion3ControlNetPipeline", DIT, of(dits.stable_diffusion_3),
         tuple({"prompt": row["prompt"], "control_image": row["image"]} for row in PICTURES), given(2, **dits.READ),
         controlnet=sd3_control),
    line("FluxImg2ImgPipeline", DIT, of(dits.flux), PICTURES, FOUR),
    line("FluxInpaintPipeline", DIT, of(dits.flux), MASKED, FOUR),
    line("FluxControlPipeline", DIT, of(dits.flux),
         tuple({"prompt": row["prompt"], "control_image": row["image"]} for row in PICTURES), given(2, **dits.READ),
         transformer=flux_channels(32)),
    line("FluxControlImg2ImgPipeline", DIT, of(dits.flux), CONTROLLED, FOUR, transformer=flux_channels(32)),
    line("FluxControlNetPipeline", DIT, of(dits.flux),
         tuple({"prompt": row["prompt"], "control_image": row["image"]} for row in PICTURES), given(2, **dits.READ),
         controlnet=flux_control),
    line("FluxFillPipeline", DIT, of(dits.flux), MASKED, given(2, **dits.READ), transformer=flux_channels(48)),
    line("FluxKontextPipeline", DIT, of(dits.flux), PICTURES, given(2, max_area=SIDE * SIDE, _auto_resize=False,
                                                                    **dits.READ)),
    line("Flux2KleinPipeline", DIT, klein,
         generation=given(2, max_sequence_length=16, text_encoder_out_layers=(0, 1, 2), **SIZE)),
    line("PixArtAlphaPipeline", DIT, of(dits.pixart), generation=given(2, **dits.READ, **dits.PLAIN)),
    line("PixArtSigmaPAGPipeline", DIT, of(dits.pixart), generation=given(2, **dits.READ, **dits.PLAIN),
         pag_applied_layers=["blocks.1"]),
    line("SanaPAGPipeline", DIT, of(dits.sana), pag_applied_layers=["transformer_blocks.0"],
         generation=given(2, **dits.LARGER, **dits.PLAIN, complex_human_instruction=None)),
    line("HunyuanDiTPAGPipeline", DIT, of(dits.hunyuan), pag_applied_layers=["blocks.0"],
         generation=given(2, **SIZE, use_resolution_binning=False)),
    line("ZImageImg2ImgPipeline", DIT, of(dits.z_image), PICTURES, FOUR),
    line("ZImageInpaintPipeline", DIT, of(dits.z_image), MASKED, FOUR),
    line("QwenImageImg2ImgPipeline", DIT, of(dits.qwen), PICTURES,
         given(4, None, strength=0.5, max_sequence_length=16, **SIZE)),
    line("QwenImageInpaintPipeline", DIT, of(dits.qwen), MASKED,
         given(4, None, strength=0.5, max_sequence_length=16, **SIZE)),
    line("QwenImageControlNetPipeline", DIT, of(dits.qwen),
         tuple({"prompt": row["prompt"], "negative_prompt": "a red square", "control_image": row["image"]}
               for row in PICTURES), given(2, None, true_cfg_scale=2.0, max_sequence_length=16, **SIZE),
         controlnet=qwen_control),
    Animal("AmusedPipeline", "U-ViT", amused, ("transformer",), given(2, height=8, width=8)),
    line("KandinskyV22Pipeline", "U-Net", kandinsky, EMBEDDED, given(2, **SIZE)),
    line("KandinskyV22Img2ImgPipeline", "U-Net", kandinsky,
         tuple(row | {"image": parts.picture(i)} for i, row in enumerate(EMBEDDED)), given(4, strength=0.5, **SIZE)),
    line("KandinskyV22PriorPipeline", "prior", prior),
    line("KandinskyV22PriorEmb2EmbPipeline", "prior", prior, PICTURES, given(4, strength=0.5)),
    line("DDIMPipeline", "U-Net", plain, ({}, {}), given(2, None)),
    line("ConsistencyModelPipeline", "U-Net", consistent, ({}, {}), given(2, None)),
    line("LDMSuperResolutionPipeline", "U-Net", sharper,
         tuple({"image": row["image"].resize((32, 32))} for row in ALONE), given(2, None)),
    line("DanceDiffusionPipeline", "audio", dance, ({}, {}), given(2, None)),
    line("IFPipeline", "U-Net", pixels, generation=given(2, **SIZE)),
    line("IFImg2ImgPipeline", "U-Net", pixels, PICTURES, given(4, strength=0.5)),
    line("IFInpaintingPipeline", "U-Net", pixels, MASKED, given(4, strength=0.5)),
    line("AudioLDM2Pipeline", "audio", of(audios.audioldm2), PROMPTS, given(2, audio_length_in_s=0.5)),
)  # fmt: skip
