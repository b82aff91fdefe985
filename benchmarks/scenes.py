"""What the embedded pipeline can do, in full precision and at uniform schemes: `python benchmarks/scenes.py`.

Scene accuracy on held-out prompts (half with one thing, half with two), the CLIP's pick of the right caption of 64 for
drawn held-out scenes, the scene reader's own accuracy on drawn scenes, and the same pictures at uniform schemes,
simulated. Writes benchmarks/results/scenes.json.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from planner.evaluating import scene_accuracy
from planner.pipelines import DEFAULTS, SCENES, components, generate, load_encoder, load_pipeline
from planner.scenes.draw import draw_scenes
from planner.scenes.grammar import HELD_OUT, held_out_scenes, sample_scene
from planner.scenes.reader import shows
from plans.scheme import parse_scheme
from plans.swap import layer_addresses, swap, undo

UNIFORM = ("w8a8", "w4ma8", "w3ma8", "w2ma8")


def reader_accuracy(count: int, seed: int) -> float:
    """Share of drawn scenes that the reader confirms; half of one thing."""
    rng = np.random.default_rng([seed, 11])
    scenes = [sample_scene(rng, 1 + i % 2, "any") for i in range(count)]
    return float(np.mean([shows(p, s) for p, s in zip(draw_scenes(scenes, rng), scenes, strict=True)]))


@torch.no_grad()
def clip_accuracy(rounds: int, seed: int) -> float:
    """Share of drawn held-out scenes whose own caption is nearest among 64 different ones."""
    encoder, right = load_encoder(SCENES), []
    rng = np.random.default_rng([seed, 12])
    for _ in range(rounds):
        scenes = {}
        while len(scenes) < 64:
            scene = sample_scene(rng, 1 + len(scenes) % 2, HELD_OUT)
            scenes[scene.caption] = scene
        pictures = torch.from_numpy(draw_scenes(list(scenes.values()), rng)).permute(0, 3, 1, 2).float() / 255
        match = encoder.image(pictures) @ encoder.text(list(scenes)).T
        right.append((match.argmax(1) == torch.arange(64)).float().mean().item())
    return float(np.mean(right))


def accuracies(pipe: Any, prompts: Sequence[Sequence[str]]) -> dict[str, float | None]:
    """Scene accuracy for one thing and for two."""
    images = [generate(pipe, texts, DEFAULTS[SCENES], batch=32) for texts in prompts]
    return {name: scene_accuracy(i, t) for name, i, t in zip(("one", "two"), images, prompts, strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=512)
    parser.add_argument("--uniform-prompts", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "scenes.json")
    args = parser.parse_args()
    pipe = load_pipeline(SCENES)
    parts = components(pipe)
    prompts = [[s.caption for s in held_out_scenes(args.prompts // 2, n, args.seed)] for n in (1, 2)]
    found: dict[str, Any] = {
        "reader": reader_accuracy(2000, args.seed),
        "clip_right_caption_of_64": clip_accuracy(8, args.seed),
        "full precision": accuracies(pipe, prompts),
    }
    print(json.dumps(found), flush=True)
    few = [texts[: args.uniform_prompts // 2] for texts in prompts]
    for text in tqdm(UNIFORM, "uniform"):
        swapped = swap(parts, dict.fromkeys(layer_addresses(parts), parse_scheme(text)), real=False)
        found[text] = accuracies(pipe, few)
        undo(swapped)
    found["about"] = {
        "prompts": args.prompts, "uniform_prompts": args.uniform_prompts, "seed": args.seed,
        "machine": platform.processor() or platform.machine(), "torch": torch.__version__,
    }  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
