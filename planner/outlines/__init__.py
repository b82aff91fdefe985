"""Layers, shapes, multiply-adds and bytes from a configuration alone: modules on the meta device, without values.

`examine` (in `outline.py`) is the way in. A model class is run where `MAKERS` has a line for it, which says what one
call is given (`inputs.py`); of any other class the layers, shapes and bytes are told, without multiply-adds.
"""

from __future__ import annotations

from bitplan.planner.outlines import inputs
from bitplan.planner.outlines.inputs import Maker  # noqa: F401

MAKERS: dict[str, Maker] = {
    "UNet2DConditionModel": Maker("unet", inputs.unet_condition),
    "UNet2DModel": Maker("unet", inputs.unet_plain, scale=1),
    "SD3Transformer2DModel": Maker("transformer", inputs.sd3, patch=2, tokens=333),
    "FluxTransformer2DModel": Maker("transformer", inputs.flux, patch=2, tokens=512),
    "QwenImageTransformer2DModel": Maker("transformer", inputs.qwen_image, patch=2, tokens=512),
    "PixArtTransformer2DModel": Maker("transformer", inputs.pixart, patch=2, tokens=300),
    "DiTTransformer2DModel": Maker("transformer", inputs.dit, patch=2),
    "SanaTransformer2DModel": Maker("transformer", inputs.sana, scale=32, tokens=300),
    "AuraFlowTransformer2DModel": Maker("transformer", inputs.aura_flow, patch=2, tokens=256),
    "WanTransformer3DModel": Maker(
        "transformer", inputs.wan, stretch=4, patch=2, side=(60, 104), frames=81, tokens=512
    ),
    "CogVideoXTransformer3DModel": Maker(
        "transformer", inputs.cogvideox, stretch=4, patch=2, side=(60, 90), frames=49, tokens=226
    ),
    "LTXVideoTransformer3DModel": Maker(
        "transformer", inputs.ltx, scale=32, stretch=8, side=(16, 22), frames=161, tokens=128
    ),
    "CLIPTextModel": Maker("text_encoder", inputs.text, scale=0),
    "CLIPTextModelWithProjection": Maker("text_encoder", inputs.text, scale=0),
    "T5EncoderModel": Maker("text_encoder", inputs.text, scale=0, tokens=512),
    "UMT5EncoderModel": Maker("text_encoder", inputs.text, scale=0, tokens=512),
}
