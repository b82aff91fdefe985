"""Retrains the embedded pipeline from a seed: `python -m training --out DIR [--only STAGE] [--seed 0]`.

Stages, in order: clip, vae, unet, export. Each resumes from its checkpoint in DIR when the command is repeated.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from training import clip, export, unet, vae
from training.checkpoint import train

STAGES = ("clip", "vae", "unet", "export")


def run_stage(stage: str, out: Path, seed: int) -> None:
    """Trains or resumes one model and writes it below `out` as a diffusers component."""
    torch.manual_seed(seed)
    checkpoint = out / f"{stage}.ckpt"
    if stage == "clip":
        clip.train_clip(out, seed)
    elif stage == "vae":
        model = train(vae.make_vae(), vae.loss, vae.RECIPE, checkpoint, seed + 1)
        model.register_to_config(scaling_factor=vae.measure_scale(model, seed))
        model.save_pretrained(out / "vae")
    elif stage == "unet":
        unet.train_unet(out, checkpoint, seed + 2)
    else:
        export.export_pipeline(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", choices=STAGES, action="append", help="run these stages only")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)  # denormal second moments of unused weights would slow the optimiser down
    for stage in args.only or STAGES:
        run_stage(stage, args.out, args.seed)


if __name__ == "__main__":
    main()
