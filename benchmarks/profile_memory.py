"""Claim: a UNet of SDXL's size (2.6 billion parameters) profiles in bfloat16 within 20 GiB.

    python -m benchmarks.profile_memory [--layers 1,2,10] [--folder DIR]

Saves a StableDiffusionXLPipeline with random weights (text encoders of one layer and a small decoder around SDXL's
UNet, 512 px), then runs `bitplan profile` on it with one prompt, 2 steps, no guidance and the default schemes. The
peak resident memory is that of the whole process with loading. --layers: transformer layers a block, for a smaller
UNet. Writes benchmarks/results/profile_memory.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from bitplan.planner.profiles.profile import open_profile
from bitplan.planner.scenes import CLIP_FOLDER, PIPELINE_FOLDER

LIMIT_GIB = 20


def text_config(words: CLIPTokenizer, width: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(words), hidden_size=width, intermediate_size=width, num_hidden_layers=1, num_attention_heads=8,
        max_position_embeddings=words.model_max_length, projection_dim=1280, bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id,
    )  # fmt: skip


def build_pipeline(
    layers: tuple[int, ...], channels: tuple[int, ...] = (320, 640, 1280), side: int = 64
) -> StableDiffusionXLPipeline:
    """Builds SDXL's UNet configuration with smaller latents. channels: multiples of 64."""
    words = CLIPTokenizer.from_pretrained(PIPELINE_FOLDER / "tokenizer")
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    unet = UNet2DConditionModel(
        sample_size=side, block_out_channels=channels, layers_per_block=2, cross_attention_dim=2048,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=tuple(width // 64 for width in channels), transformer_layers_per_block=layers,
        use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(32, 32, 32, 32), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, norm_num_groups=8, mid_block_add_attention=False,
    )  # fmt: skip
    pipe = StableDiffusionXLPipeline(
        vae, CLIPTextModel(text_config(words, 768)), CLIPTextModelWithProjection(text_config(words, 1280)), words,
        words, unet, EulerDiscreteScheduler(),
    )  # fmt: skip
    torch.set_default_dtype(torch.float32)
    return pipe


def profile(folder: Path, out: Path, threads: int) -> dict[str, Any]:
    """Returns peak GiB and seconds of the whole command."""
    command = [
        sys.executable, "-m", "bitplan", "profile", str(folder), "--out", str(out), "--dtype", "bfloat16",
        "--count", "1", "--steps", "2", "--guidance", "1", "--timesteps", "2", "--clip", str(CLIP_FOLDER),
        "--threads", str(threads),
    ]  # fmt: skip
    start = time.perf_counter()
    _, status, used = os.wait4(subprocess.Popen(command).pid, 0)
    if status:
        raise SystemExit(f"bitplan profile ended with {os.waitstatus_to_exitcode(status)}")
    return {"peak_GiB": used.ru_maxrss / 2**20, "seconds": time.perf_counter() - start}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", default="1,2,10")
    parser.add_argument("--folder", type=Path, help="Where the pipeline is kept [a temporary folder].")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "profile_memory.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        if not (folder / "model_index.json").is_file():
            # of its own process, so that its memory is not counted
            code = f"build_pipeline({tuple(map(int, args.layers.split(',')))}).save_pretrained({str(folder)!r})"
            subprocess.run([sys.executable, "-c", f"from benchmarks.profile_memory import *; {code}"], check=True)
        row = profile(folder, folder / "x.profile", args.threads)
        with open_profile(folder / "x.profile") as store:
            layers, pairs = len(store.layers()), len(store.measured())
            weights = sum(cost.bytes for cost in store.costs() if cost.scheme == "keep")
    row |= {
        "layers": layers, "pairs": pairs, "weights_GiB": weights / 2**30, "limit_GiB": LIMIT_GIB,
        "threads": args.threads, "seed": 0, "machine": platform.machine(), "torch": torch.__version__,
    }  # fmt: skip
    args.out.write_text(json.dumps(row, indent=1) + "\n")
    print(json.dumps(row, indent=1))


if __name__ == "__main__":
    main()
