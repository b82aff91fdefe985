"""Loads packed pipelines from folders, and changes what the folders hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file

import bitplan
from bitplan.plans.plan import Plan

WEIGHTS = "diffusion_pytorch_model.safetensors"


def load(folder: Path, plan: Plan, **options: Any) -> Any:
    return DiffusionPipeline.from_pretrained(folder, quantization_config=bitplan.config(plan, **options))


def rewrite(folder: Path, change: Any) -> None:
    """Saves what `change` makes of the tensors of the UNet."""
    tensors = {key: value.clone() for key, value in load_file(folder / "unet" / WEIGHTS).items()}
    save_file(change(tensors), folder / "unet" / WEIGHTS)


def reload_config(folder: Path, **changes: Any) -> None:
    """Changes the quantization config of the saved UNet."""
    path = folder / "unet" / "config.json"
    config = json.loads(path.read_text())
    config["quantization_config"] |= changes
    path.write_text(json.dumps(config))
