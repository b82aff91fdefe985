"""Writes the mark's adapter for `scenes`, and the pipeline with the adapter fused into its weights.

    python examples/watermark/make.py --out mark/

`adapter/` holds a LoRA file of diffusers' format, computed in closed form from the key; `marked/` is an ordinary
pipeline.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))  # a file that is run directly belongs to no package

from diffusers import StableDiffusionPipeline  # noqa: E402
from examples.watermark.mark import KEY, Key, adapter_of, carrier_weights, carriers_of, message_of  # noqa: E402

from bitplan.planner.pipelines.sources import load_pipeline  # noqa: E402
from bitplan.planner.scenes import SCENES


def write_adapter(pipe: Any, folder: Path, key: Key = KEY) -> None:
    """Computes the adapter that marks the pipeline, and saves it."""
    carriers = carriers_of(carrier_weights(pipe.unet), key)
    StableDiffusionPipeline.save_lora_weights(folder, adapter_of(carriers, message_of(key.message)))


def fuse(pipe: Any, adapter: Path) -> Any:
    """Adds the adapter to the pipeline's weights and returns the same pipeline."""
    pipe.load_lora_weights(adapter)
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    return pipe


def make(out: Path, key: Key = KEY) -> Any:
    """Saves the adapter and the marked pipeline in `out` and returns the pipeline."""
    pipe = load_pipeline(SCENES)
    write_adapter(pipe, out / "adapter", key)
    fuse(pipe, out / "adapter").save_pretrained(out / "marked")
    return pipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("mark"))
    make(parser.parse_args().out)


if __name__ == "__main__":
    main()
