"""Computes layers, shapes, multiply-adds and bytes from a configuration alone, with modules on the meta device.

The entry point is `examine.examine`. It runs a model class that has a line in `MAKERS`, which makes the inputs of one
call (`inputs.py`); of any other class it reports layers, shapes and bytes without multiply-adds.
"""

from __future__ import annotations

from bitplan.planner.outlines import inputs
from bitplan.planner.outlines.inputs import InputMaker  # noqa: F401

MAKERS: dict[str, InputMaker] = {
    "UNet2DConditionModel": InputMaker("unet", inputs.unet_condition),
    "UNet2DModel": InputMaker("unet", inputs.unet_plain, scale=1),
    "SD3Transformer2DModel": InputMaker("transformer", inputs.sd3, patch=2, tokens=333),
    "FluxTransformer2DModel": InputMaker("transformer", inputs.flux, patch=2, tokens=512),
    "QwenImageTransformer2DModel": InputMaker("transformer", inputs.qwen_image, patch=2, tokens=512),
    "PixArtTransformer2DModel": InputMaker("transformer", inputs.pixart, patch=2, tokens=300),
    "DiTTransformer2DModel": InputMaker("transformer", inputs.dit, patch=2),
    "SanaTransformer2DModel": InputMaker("transformer", inputs.sana, scale=32, tokens=300),
    "AuraFlowTransformer2DModel": InputMaker("transformer", inputs.aura_flow, patch=2, tokens=256),
    "WanTransformer3DModel": InputMaker(
        "transformer", inputs.wan, stretch=4, patch=2, side=(60, 104), frames=81, tokens=512
    ),
    "CogVideoXTransformer3DModel": InputMaker(
        "transformer", inputs.cogvideox, stretch=4, patch=2, side=(60, 90), frames=49, tokens=226
    ),
    "LTXVideoTransformer3DModel": InputMaker(
        "transformer", inputs.ltx, scale=32, stretch=8, side=(16, 22), frames=161, tokens=128
    ),
    "CLIPTextModel": InputMaker("text_encoder", inputs.text, scale=0),
    "CLIPTextModelWithProjection": InputMaker("text_encoder", inputs.text, scale=0),
    "T5EncoderModel": InputMaker("text_encoder", inputs.text, scale=0, tokens=512),
    "UMT5EncoderModel": InputMaker("text_encoder", inputs.text, scale=0, tokens=512),
}
