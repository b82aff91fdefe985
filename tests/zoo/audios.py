"""Pipelines that generate sound."""

from __future__ import annotations

from typing import Any

from diffusers import (
    AudioLDM2Pipeline,
    AudioLDM2ProjectionModel,
    AudioLDM2UNet2DConditionModel,
    AutoencoderOobleck,
    DDIMScheduler,
    EDMDPMSolverMultistepScheduler,
    StableAudioDiTModel,
    StableAudioPipeline,
    StableAudioProjectionModel,
)
from transformers import (
    ClapAudioConfig,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    ClapTextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    RobertaTokenizer,
    SpeechT5HifiGan,
    SpeechT5HifiGanConfig,
    T5EncoderModel,
    T5Tokenizer,
)

from bitplan.planner.pipelines.generation import Generation
from tests.zoo import parts
from tests.zoo.animal import PROMPTS, Animal

WIDTH = parts.WIDTH


def stable_audio() -> Any:
    """Generates half a second at 256 Hz, in stereo."""
    return StableAudioPipeline(
        vae=AutoencoderOobleck(
            encoder_hidden_size=8, downsampling_ratios=[2, 4], channel_multiples=[1, 2], decoder_channels=8,
            decoder_input_channels=4, sampling_rate=256,
        ),
        text_encoder=parts.t5(),
        projection_model=StableAudioProjectionModel(WIDTH, 16, 0, 32),
        tokenizer=parts.words(),
        transformer=StableAudioDiTModel(
            sample_size=16, in_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
            num_key_value_attention_heads=1, out_channels=4, cross_attention_dim=16, time_proj_dim=16,
            global_states_input_dim=32, cross_attention_input_dim=16,
        ),
        scheduler=EDMDPMSolverMultistepScheduler(solver_order=2, prediction_type="v_prediction"),
    )  # fmt: skip


def roberta_words() -> RobertaTokenizer:
    """Every letter is a token."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    letters = sorted({letter.replace(" ", "\u0120") for prompt in PROMPTS for letter in prompt})
    vocabulary = {token: place for place, token in enumerate([*special, *letters])}
    return RobertaTokenizer(vocab=vocabulary, merges=[], model_max_length=50)


def t5_words() -> T5Tokenizer:
    known = sorted({word for prompt in PROMPTS for word in prompt.split()})
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)]
    return T5Tokenizer([*special, *((f"\u2581{word}", -1.0) for word in known)], extra_ids=0, model_max_length=16)


def clap(words: int) -> ClapModel:
    return ClapModel(
        ClapConfig(
            text_config=ClapTextConfig(
                vocab_size=words, hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2,
                intermediate_size=2 * WIDTH, max_position_embeddings=52, projection_dim=WIDTH,
            ),
            audio_config=ClapAudioConfig(
                spec_size=64, window_size=8, num_mel_bins=8, hidden_size=32, depths=[1, 1],
                num_attention_heads=[2, 2], patch_embeds_hidden_size=16, projection_dim=WIDTH, num_hidden_layers=2,
            ),
            projection_dim=WIDTH,
        )
    )  # fmt: skip


def hifi_gan(bins: int) -> SpeechT5HifiGan:
    return SpeechT5HifiGan(
        SpeechT5HifiGanConfig(
            model_in_dim=bins, sampling_rate=256, upsample_initial_channel=8, upsample_rates=[2, 2],
            upsample_kernel_sizes=[4, 4], resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1, 3]],
            normalize_before=False, initializer_range=0.2,
        )
    )  # fmt: skip


def audioldm2() -> Any:
    letters, known = roberta_words(), t5_words()
    return AudioLDM2Pipeline(
        vae=parts.vae(in_channels=1, out_channels=1),
        text_encoder=clap(len(letters)),
        text_encoder_2=T5EncoderModel(parts.t5_config(vocab_size=len(known))),
        projection_model=AudioLDM2ProjectionModel(WIDTH, WIDTH, 16),
        language_model=GPT2LMHeadModel(
            GPT2Config(
                vocab_size=8, n_positions=64, n_embd=16, n_layer=1, n_head=2, max_new_tokens=4, bos_token_id=0,
                eos_token_id=1,
            )
        ),
        tokenizer=letters,
        tokenizer_2=known,
        feature_extractor=ClapFeatureExtractor(feature_size=8, sampling_rate=256, hop_length=16, fft_window_size=64),
        unet=AudioLDM2UNet2DConditionModel(
            sample_size=8, block_out_channels=(16,), layers_per_block=1, norm_num_groups=8,
            down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
            cross_attention_dim=((None, 16, WIDTH),), attention_head_dim=2,
        ),
        scheduler=DDIMScheduler(clip_sample=False),
        vocoder=hifi_gan(8),
    )  # fmt: skip


AUDIOS: tuple[Animal, ...] = (
    Animal("StableAudioPipeline", "audio", stable_audio, ("transformer",), Generation(2, 3.0)),
    Animal("AudioLDM2Pipeline", "audio", audioldm2, ("unet",), Generation(2, 3.0, options={"audio_length_in_s": 0.5})),
)
