"""Parts that many pipelines share: tokenizers, text and image encoders, decoders of images; small and made offline."""

from __future__ import annotations

from typing import Any

from diffusers import AutoencoderKL
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPImageProcessor,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
)

from tests import tiny
from tests.zoo.animal import PROMPTS

WIDTH = tiny.WIDTH  # of every text encoder
CHAT = (
    "{% for message in messages %}{{ '<user> ' + message['content'] + ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<model> ' }}{% endif %}"
)


def clip_words() -> Any:
    return tiny.tokenizer()


def words(length: int = 16, begin: bool = False) -> PreTrainedTokenizerFast:
    """Returns a tokenizer of the zoo's few words; all others are unknown. It ends each text, as T5's does, or begins
    it, as Gemma's does. length: maximum length of a text.
    """
    known = sorted({word for prompt in PROMPTS for word in prompt.split()})
    special = ["<pad>", "</s>", "<unk>", "<s>", "<user>", "<model>"]
    vocabulary = {word: place for place, word in enumerate([*special, *known])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(
        single="<s> $A" if begin else "$A </s>", special_tokens=[("<s>", 3), ("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", bos_token="<s>",
        model_max_length=length, chat_template=CHAT, padding_side="right",
    )  # fmt: skip


def clip_text(projected: bool = False, **options: Any) -> Any:
    config = tiny.text_config()
    config.update(options)
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)


def clip_vision() -> CLIPVisionModelWithProjection:
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=tiny.SIDE,
            patch_size=8,
            projection_dim=WIDTH,
        )  # fmt: skip
    )


def clip_pictures() -> CLIPImageProcessor:
    side = tiny.SIDE
    return CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})


def t5_config(cls: Any = T5Config, **options: Any) -> Any:
    return cls(
        **{"vocab_size": len(words()), "d_model": WIDTH, "d_kv": 16, "d_ff": 2 * WIDTH, "num_layers": 1,
           "num_heads": 2, "feed_forward_proj": "gated-gelu", "use_cache": False} | options
    )  # fmt: skip


def t5(**options: Any) -> T5EncoderModel:
    return T5EncoderModel(t5_config(**options))


def _language(**options: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(words()), "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "pad_token_id": 0, "eos_token_id": 1,
        "bos_token_id": 3,
    } | options  # fmt: skip


def gemma() -> Gemma2Model:
    return Gemma2Model(Gemma2Config(**_language(query_pre_attn_scalar=16, sliding_window=64)))


def qwen() -> Qwen3Model:
    return Qwen3Model(Qwen3Config(**_language()))


def qwen_vl() -> Qwen2_5_VLForConditionalGeneration:
    """Reads pictures too, which its pipelines may never pass."""
    vision = {
        "depth": 1, "hidden_size": WIDTH, "out_hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_heads": 2,
        "fullatt_block_indexes": [0],
    }  # fmt: skip
    ropes = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    text = _language(rope_parameters=ropes)
    text.pop("head_dim")
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision))


def vae(channels: int = 4, **options: Any) -> AutoencoderKL:
    """Two resolutions: a latent has half of the picture's side."""
    return AutoencoderKL(
        **{"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
           "block_out_channels": (8, 16), "norm_num_groups": 4, "sample_size": tiny.SIDE, "latent_channels": channels}
        | options
    )  # fmt: skip


def picture(place: int) -> Image.Image:
    """Returns a coloured square on black."""
    canvas = Image.new("RGB", (tiny.SIDE, tiny.SIDE))
    canvas.paste(((255, 64, 0), (0, 128, 255))[place % 2], (4 * place, 4, 4 * place + 8, 12))
    return canvas


def mask() -> Image.Image:
    """Returns a mask that is white, to be painted, in the right half."""
    canvas = Image.new("L", (tiny.SIDE, tiny.SIDE))
    canvas.paste(255, (tiny.SIDE // 2, 0, tiny.SIDE, tiny.SIDE))
    return canvas
