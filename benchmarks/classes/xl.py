"""Classes around the U-Net of Stable Diffusion XL."""

from __future__ import annotations

from typing import Any

from benchmarks.classes.build import CONTROLLED, MASKED, PICTURES, SIZE, given, line
from benchmarks.classes.stable import HALF, UNET, control_xs
from diffusers import ControlNetModel, ControlNetUnionModel, T2IAdapter
from tests.zoo import parts, unets
from tests.zoo.animal import Animal

MASKED_CONTROLLED = tuple(row | {"control_image": parts.picture(0)} for row in MASKED)


def xl() -> dict[str, Any]:
    return unets._xl()


def control(kit: Any) -> ControlNetModel:
    return ControlNetModel.from_unet(kit["unet"], conditioning_embedding_out_channels=(8, 8))


def union(kit: Any) -> ControlNetUnionModel:
    config = ControlNetUnionModel.from_unet(kit["unet"], conditioning_embedding_out_channels=(8, 8)).config
    return ControlNetUnionModel.from_config(
        config, num_trans_channel=16, num_trans_head=2, num_trans_layer=1, num_proj_channel=16
    )


def xs() -> dict[str, Any]:
    """Two layers in each block, as a ControlNet-XS has."""
    kit = xl()
    return kit | {"unet": type(kit["unet"]).from_config(kit["unet"].config, layers_per_block=2)}


def deeper(channels: int) -> Any:
    def of(kit: Any) -> Any:
        from diffusers import UNet2DConditionModel

        return UNet2DConditionModel.from_config(kit["unet"].config, in_channels=channels)

    return of


def adapter(kit: Any) -> T2IAdapter:
    return T2IAdapter(3, [16, 32], 1, 4, "full_adapter_xl")


PAG = {"pag_applied_layers": ["mid"]}
MODE = {"control_mode": [0]}
XL: tuple[Animal, ...] = (
    line("StableDiffusionXLInpaintPipeline", UNET, xl, MASKED, given(4, strength=0.5, **SIZE)),
    line("StableDiffusionXLInstructPix2PixPipeline", UNET, xl, PICTURES, given(2, **SIZE), unet=deeper(8),
         is_cosxl_edit=False),
    line("StableDiffusionXLControlNetPipeline", UNET, xl, PICTURES, controlnet=control),
    line("StableDiffusionXLControlNetImg2ImgPipeline", UNET, xl, CONTROLLED, HALF, controlnet=control),
    line("StableDiffusionXLControlNetInpaintPipeline", UNET, xl, MASKED_CONTROLLED, given(4, strength=0.5, **SIZE),
         controlnet=control),
    line("StableDiffusionXLControlNetUnionPipeline", UNET, xl,
         tuple({"prompt": row["prompt"], "control_image": [row["image"]]} for row in PICTURES), given(2, **MODE),
         controlnet=union),
    line("StableDiffusionXLControlNetUnionImg2ImgPipeline", UNET, xl,
         tuple(row | {"control_image": [row["control_image"]]} for row in CONTROLLED), given(4, strength=0.5, **MODE),
         controlnet=union),
    line("StableDiffusionXLControlNetXSPipeline", UNET, xs, PICTURES, controlnet=control_xs),
    line("StableDiffusionXLPAGPipeline", UNET, xl, **PAG),
    line("StableDiffusionXLPAGImg2ImgPipeline", UNET, xl, PICTURES, HALF, **PAG),
    line("StableDiffusionXLPAGInpaintPipeline", UNET, xl, MASKED, given(4, strength=0.5, **SIZE), **PAG),
    line("StableDiffusionXLControlNetPAGPipeline", UNET, xl, PICTURES, controlnet=control, **PAG),
    line("StableDiffusionXLControlNetPAGImg2ImgPipeline", UNET, xl, CONTROLLED, HALF, controlnet=control, **PAG),
    line("StableDiffusionXLAdapterPipeline", UNET, xl, PICTURES, adapter=adapter),
    line("TextToVideoZeroSDXLPipeline", UNET, xl, generation=given(4, video_length=2, t0=1, t1=2)),
)  # fmt: skip
