"""Makes the inputs of one call of each known model class from its configuration, as tensors on the meta device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

Inputs = dict[str, Any]
Choices = dict[str | None, Callable[[], Inputs]]  # value of a configuration's key -> maker


@dataclass(frozen=True)
class Latents:
    """The size of one call.

    Attributes:
        batch: number of images.
        frames: latent frames; 1 for an image.
        rows: latent rows before patches are cut.
        columns: latent columns before patches are cut.
        tokens: tokens of text.
    """

    batch: int
    frames: int
    rows: int
    columns: int
    tokens: int


@dataclass(frozen=True)
class InputMaker:
    """Makes the inputs of one model class.

    Attributes:
        component: its usual name in diffusers' pipelines.
        make: (configuration, latents) -> keyword arguments of `forward`, or None for an unsupported configuration.
        scale: pixels a latent row; 0 for a class without latents.
        stretch: video frames a latent frame.
        patch: latent rows and columns are multiples of it.
        side: (rows, columns) of latents for a configuration without `sample_size`.
        frames: usual number of video frames.
        tokens: usual number of text tokens.
    """

    component: str
    make: Callable[[Any, Latents], Inputs | None]
    scale: int = 8
    stretch: int = 1
    patch: int = 1
    side: tuple[int, int] = (128, 128)
    frames: int = 1
    tokens: int = 77


def blank(*shape: int) -> torch.Tensor:
    """Returns a float tensor on the meta device."""
    return torch.empty(shape, dtype=torch.float32, device="meta")


def _labels(batch: int) -> torch.Tensor:
    return torch.empty(batch, dtype=torch.long, device="meta")


def unet_condition(config: Any, latents: Latents) -> Inputs | None:
    """Makes the inputs of UNet2DConditionModel: SD, SDXL, inpainting, Kandinsky's decoder, unCLIP."""
    images, batch = (config.encoder_hid_dim_type or "").startswith("image"), latents.batch
    added: Choices = {
        None: lambda: {},
        "text": lambda: {},
        "image": lambda: {"image_embeds": blank(batch, config.encoder_hid_dim)},
        "text_time": lambda: {
            "text_embeds": blank(
                batch, config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
            ),
            "time_ids": blank(batch, 6),
        },
    }
    classes: Choices = {
        None: lambda: {"class_labels": _labels(batch)} if config.num_class_embeds else {},
        "timestep": lambda: {"class_labels": blank(batch)},
        "projection": lambda: {"class_labels": blank(batch, config.projection_class_embeddings_input_dim)},
        "simple_projection": lambda: {"class_labels": blank(batch, config.projection_class_embeddings_input_dim)},
    }
    if config.addition_embed_type not in added or config.class_embed_type not in classes or config.time_cond_proj_dim:
        return None
    width = config.cross_attention_dim
    width = config.encoder_hid_dim or (width if isinstance(width, int) else width[0])
    conditions = added[config.addition_embed_type]()
    if images:
        conditions["image_embeds"] = blank(batch, config.encoder_hid_dim)
    return {
        "sample": blank(batch, config.in_channels, latents.rows, latents.columns),
        "timestep": blank(batch),
        "encoder_hidden_states": blank(batch, latents.tokens, width),
        "added_cond_kwargs": conditions,
        **classes[config.class_embed_type](),
    }


def unet_plain(config: Any, latents: Latents) -> Inputs | None:
    """Makes the inputs of UNet2DModel, without a condition or with a class."""
    if config.class_embed_type not in (None, "timestep"):
        return None
    labels = {} if config.num_class_embeds is None else {"class_labels": _labels(latents.batch)}
    if config.class_embed_type == "timestep":
        labels = {"class_labels": blank(latents.batch)}
    return {
        "sample": blank(latents.batch, config.in_channels, latents.rows, latents.columns),
        "timestep": blank(latents.batch),
        **labels,
    }


def _image(config: Any, latents: Latents, text: int) -> Inputs:
    """Makes the inputs that image transformers share: latents, text and time."""
    return {
        "hidden_states": blank(latents.batch, config.in_channels, latents.rows, latents.columns),
        "encoder_hidden_states": blank(latents.batch, latents.tokens, text),
        "timestep": blank(latents.batch),
    }


def sd3(config: Any, latents: Latents) -> Inputs:
    pooled = {"pooled_projections": blank(latents.batch, config.pooled_projection_dim)}
    return _image(config, latents, config.joint_attention_dim) | pooled


def aura_flow(config: Any, latents: Latents) -> Inputs:
    return _image(config, latents, config.joint_attention_dim)


def pixart(config: Any, latents: Latents) -> Inputs:
    extra = config.use_additional_conditions
    if extra is None:  # the class then decides by its size
        extra = config.sample_size == 128
    sizes = (blank(latents.batch, 2), blank(latents.batch, 1)) if extra else (None, None)
    conditions = dict(zip(("resolution", "aspect_ratio"), sizes, strict=True))
    return _image(config, latents, config.caption_channels) | {"added_cond_kwargs": conditions}


def sana(config: Any, latents: Latents) -> Inputs:
    guidance = {"guidance": blank(latents.batch)} if config.guidance_embeds else {}
    return _image(config, latents, config.caption_channels) | guidance


def dit(config: Any, latents: Latents) -> Inputs:
    return {
        "hidden_states": blank(latents.batch, config.in_channels, latents.rows, latents.columns),
        "timestep": blank(latents.batch),
        "class_labels": _labels(latents.batch),
    }


def _packed(config: Any, latents: Latents) -> Inputs:
    """Makes inputs whose tokens hold two by two latents, as the pipelines of FLUX and Qwen-Image pack them."""
    return {
        "hidden_states": blank(latents.batch, (latents.rows // 2) * (latents.columns // 2), config.in_channels),
        "encoder_hidden_states": blank(latents.batch, latents.tokens, config.joint_attention_dim),
        "timestep": blank(latents.batch),
        **({"guidance": blank(latents.batch)} if config.guidance_embeds else {}),
    }


def flux(config: Any, latents: Latents) -> Inputs:
    return _packed(config, latents) | {
        "pooled_projections": blank(latents.batch, config.pooled_projection_dim),
        "img_ids": blank((latents.rows // 2) * (latents.columns // 2), 3),
        "txt_ids": blank(latents.tokens, 3),
    }


def qwen_image(config: Any, latents: Latents) -> Inputs:
    shapes = [[(1, latents.rows // 2, latents.columns // 2)]] * latents.batch
    return _packed(config, latents) | {"img_shapes": shapes}


def wan(config: Any, latents: Latents) -> Inputs:
    image = config.image_dim and {"encoder_hidden_states_image": blank(latents.batch, 257, config.image_dim)}
    return {
        "hidden_states": blank(latents.batch, config.in_channels, latents.frames, latents.rows, latents.columns),
        "timestep": blank(latents.batch),
        "encoder_hidden_states": blank(latents.batch, latents.tokens, config.text_dim),
        **(image or {}),
    }


def cogvideox(config: Any, latents: Latents) -> Inputs:
    rows, columns = latents.rows // config.patch_size, latents.columns // config.patch_size
    positions = latents.frames // (config.patch_size_t or 1) * rows * columns
    rotary = (blank(positions, config.attention_head_dim),) * 2 if config.use_rotary_positional_embeddings else None
    return {
        "hidden_states": blank(latents.batch, latents.frames, config.in_channels, latents.rows, latents.columns),
        "encoder_hidden_states": blank(latents.batch, latents.tokens, config.text_embed_dim),
        "timestep": blank(latents.batch),
        "image_rotary_emb": rotary,
        **({"ofs": blank(latents.batch)} if config.ofs_embed_dim else {}),
    }


def ltx(config: Any, latents: Latents) -> Inputs:
    positions = latents.frames * latents.rows * latents.columns
    return {
        "hidden_states": blank(latents.batch, positions, config.in_channels),
        "encoder_hidden_states": blank(latents.batch, latents.tokens, config.caption_channels),
        "timestep": blank(latents.batch),
        "encoder_attention_mask": blank(latents.batch, latents.tokens),
        "num_frames": latents.frames,
        "height": latents.rows,
        "width": latents.columns,
    }


def text(_: Any, latents: Latents) -> Inputs:
    """Makes the token ids of a text encoder."""
    return {"input_ids": torch.zeros(latents.batch, latents.tokens, dtype=torch.long, device="meta")}
