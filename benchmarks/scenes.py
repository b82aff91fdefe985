"""Measures the accuracy of the embedded pipeline in float32 and at uniform schemes: `python -m benchmarks.scenes`.

Scene accuracy on held-out prompts (half with one object, half with two), the accuracy of the CLIP in selecting one of
64 captions for drawn held-out scenes, the scene reader's accuracy on drawn scenes, and the pictures at uniform schemes
with simulated kernels. Writes benchmarks/results/scenes.json.
"""

from __future__ import annotations

import argparse
import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from bitplan.planner.evaluation.plans import scene_accuracy
from bitplan.planner.pipelines.encoder import load_encoder
from bitplan.planner.pipelines.sources import DEFAULTS, components, generate, load_pipeline
from bitplan.planner.scenes import SCENES
from bitplan.planner.scenes.draw import draw_scenes
from bitplan.planner.scenes.grammar import HELD_OUT, held_out_scenes, sample_scene
from bitplan.planner.scenes.reader import shows
from bitplan.plans.layers.swap import layer_addresses, swap, undo
from bitplan.plans.scheme import parse_scheme
from bitplan.sensitivity.metrics import METRICS
from bitplan.sensitivity.table import summarise

UNIFORM = ("w8a8", "w4a8", "w4ma8", "w3a8", "w3ma8", "w2a8", "w2ma8")


def reader_accuracy(count: int, seed: int) -> float:
    """Returns the share of drawn scenes that the reader recognises; half have one object."""
    rng = np.random.default_rng([seed, 11])
    scenes = [sample_scene(rng, 1 + i % 2, "any") for i in range(count)]
    return float(np.mean([shows(p, s) for p, s in zip(draw_scenes(scenes, rng), scenes, strict=True)]))


@torch.no_grad()
def clip_accuracy(rounds: int, seed: int) -> float:
    """Returns the share of drawn held-out scenes whose own caption is nearest among 64 different ones."""
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


@dataclass(frozen=True, eq=False)
class Gallery:
    """Pictures of prompts with one object and with two."""

    prompts: tuple[list[str], list[str]]
    images: tuple[torch.Tensor, torch.Tensor]

    def accuracies(self) -> dict[str, float | None]:
        pairs = zip(("one", "two"), self.images, self.prompts, strict=True)
        return {name: scene_accuracy(images, texts) for name, images, texts in pairs}


def paint(pipe: Any, count: int, seed: int) -> Gallery:
    """Paints `count` held-out prompts."""
    ones, twos = ([s.caption for s in held_out_scenes(count // 2, n, seed)] for n in (1, 2))
    return Gallery((ones, twos), tuple(generate(pipe, texts, DEFAULTS[SCENES], batch=32) for texts in (ones, twos)))


@torch.no_grad()
def losses(full: Gallery, changed: Gallery) -> dict[str, dict[str, float]]:
    """Returns mean and standard error over prompts of the pictures' losses."""
    encoder, results = load_encoder(SCENES), {}
    before, after = torch.cat(full.images), torch.cat(changed.images)
    embeds = encoder.image(before), encoder.image(after)
    for name, values in (
        ("dssim", METRICS["dssim"].function(before, after)),
        ("embed_drift", METRICS["embed_drift"].function(*embeds)),
    ):
        mean, stderr, _ = summarise(values.tolist())
        results[name] = {"mean": mean, "stderr": stderr}
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=512)
    parser.add_argument("--uniform-prompts", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "scenes.json")
    args = parser.parse_args()
    pipe = load_pipeline(SCENES)
    parts = components(pipe, ["unet"])
    results: dict[str, Any] = {
        "reader": reader_accuracy(2000, args.seed),
        "clip_right_caption_of_64": clip_accuracy(8, args.seed),
        "full precision": paint(pipe, args.prompts, args.seed).accuracies(),
    }
    print(json.dumps(results), flush=True)
    full = paint(pipe, args.uniform_prompts, args.seed)
    results["full precision, on the uniform prompts"] = full.accuracies()
    for text in tqdm(UNIFORM, "uniform"):
        swapped = swap(parts, dict.fromkeys(layer_addresses(parts), parse_scheme(text)), real=False)
        changed = paint(pipe, args.uniform_prompts, args.seed)
        undo(swapped)
        results[text] = changed.accuracies() | losses(full, changed)
    results["about"] = {
        "prompts": args.prompts, "uniform_prompts": args.uniform_prompts, "seed": args.seed,
        "machine": platform.processor() or platform.machine(), "torch": torch.__version__,
    }  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
