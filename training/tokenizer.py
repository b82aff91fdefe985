"""Trains the CLIPTokenizer by byte-pair merges on captions, so that each word of the grammar is one token."""

from __future__ import annotations

import json

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from bitplan.planner.scenes.grammar import ANY, sample_scene

LENGTH = 24  # tokens with begin and end; the longest caption has 18
SPECIAL = ("<|startoftext|>", "<|endoftext|>")


def train_tokenizer(seed: int) -> CLIPTokenizer:
    """Trains the tokenizer; it encodes any text, since its alphabet is all bytes."""
    rng = np.random.default_rng([seed, 7])
    captions = [sample_scene(rng, 1 + i % 2, ANY).caption for i in range(4000)]
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=SPECIAL[1]))
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), bpe.pre_tokenizer])
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=2000, min_frequency=2, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    bpe.train_from_iterator(captions, trainer)
    model = json.loads(bpe.to_str())["model"]
    pairs = [tuple(pair) for pair in model["merges"]]
    words = alphabet + [byte + "</w>" for byte in alphabet] + ["".join(pair) for pair in pairs] + list(SPECIAL)
    vocab = {word: index for index, word in enumerate(dict.fromkeys(words))}
    return CLIPTokenizer(vocab=vocab, merges=pairs, model_max_length=LENGTH)
