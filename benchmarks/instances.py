"""Problems of diffusion-model size for benchmarks: real layer shapes and work, synthetic losses, from a seed.

    python -m benchmarks.instances

The command measures SDXL's shapes again, into benchmarks/sdxl_shapes.json. Shapes, bytes and multiply-adds are those
of the SDXL UNet, built from its public configuration without weights. Losses are heavy-tailed and correlated over
layers, fall about fourfold a bit, and are not always monotone, like measured ones. Layers with one input share an
activation format.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from bitplan.solvers.problem import Budget, Problem, Tie

SCHEMES_12 = ("keep", "w8a8", "w8a16", "w6a8", "w6a16", "w5a8", "w4a8", "w4a16", "w3a8", "w3a16", "w2a8", "w2a16")
SCHEMES_30 = tuple(f"w{w}{g}a{a}" for w in (8, 6, 5, 4, 3, 2) for g in ("", "g64") for a in (16, 8)) + tuple(
    f"w{w}a{a}" for w in (8, 6, 4) for a in (6, 4)
)
SHARES = {"bytes": 0.25, "ms": 0.15, "alignment": 0.0009}  # from the least to the most of each: all three bind
SHAPES = Path(__file__).parent / "sdxl_shapes.json"
SDXL: dict[str, Any] = {
    "sample_size": 128, "block_out_channels": (320, 640, 1280), "layers_per_block": 2, "cross_attention_dim": 2048,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10), "attention_head_dim": (5, 10, 20), "use_linear_projection": True,
    "addition_embed_type": "text_time", "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
}  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """One layer: its weight's shape, multiply-adds of one call, and the number of its input."""

    name: str
    weight: tuple[int, ...]
    macs: int
    input: int


@functools.cache
def sdxl_shapes() -> tuple[Shape, ...]:
    """Returns the 794 Linear and Conv2d layers of the SDXL UNet in the order of their calls, as `measure_sdxl` wrote
    them.
    """
    return tuple(Shape(name, tuple(weight), macs, read) for name, weight, macs, read in json.loads(SHAPES.read_text()))


def measure_sdxl() -> list[Shape]:
    """Reads the shapes from diffusers' model without weights, at 1024 x 1024 pixels."""
    import torch
    from diffusers import UNet2DConditionModel

    results: list[Shape] = []
    inputs: dict[int, tuple[int, Any]] = {}  # the tensor is kept alive, so that its id stays its own

    def note(name: str) -> Any:
        def hook(module: Any, args: tuple[Any, ...], out: Any) -> None:
            weight = tuple(module.weight.shape)
            number = inputs.setdefault(id(args[0]), (len(inputs), args[0]))[0]
            results.append(Shape(name, weight, prod(weight) * out.numel() // weight[0], number))

        return hook

    with torch.device("meta"):
        unet = UNet2DConditionModel(**SDXL).eval()
        for name, module in unet.named_modules():
            if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)):
                module.register_forward_hook(note(name))
        added = {"text_embeds": torch.zeros(1, 1280), "time_ids": torch.zeros(1, 6)}
        unet(torch.zeros(1, 4, 128, 128), torch.tensor(1), torch.zeros(1, 77, 2048), added_cond_kwargs=added)
    return results


def problem_of(shapes: tuple[Shape, ...], schemes: tuple[str, ...], budgets: int, seed: int = 0) -> Problem:
    """Makes a problem with one group a layer and one candidate a scheme; the first `budgets` of bytes, ms and
    alignment are bounded.
    """
    random = np.random.default_rng([seed, len(schemes), budgets])
    layer = random.lognormal(0, 2.0, (len(shapes), 1)) * random.lognormal(0, 0.3, (len(shapes), 2))
    bits = np.array([_bits(scheme) for scheme in schemes])  # (K, 2)
    kept = np.array([scheme == "keep" for scheme in schemes])
    noise = (4.0 ** -bits[:, 0] + 0.05 * 4.0 ** -np.minimum(bits[:, 1], 12)) * ~kept
    losses = [layer[:, [i]] * noise * random.lognormal(0, 0.35, (len(shapes), len(schemes))) for i in (0, 1)]
    sizes = np.array([prod(shape.weight) for shape in shapes])
    rows = np.array([shape.weight[0] for shape in shapes])
    stored = np.ceil(sizes[:, None] * bits[:, 0] / 8).astype(np.int64) + np.where(kept, 0, 4 * rows[:, None])
    speed = np.where(bits[:, 1] <= 8, 1.0, 2.0) * (1 + 0.04 * (8 - np.minimum(bits[:, 0], 8)))
    ms = np.array([shape.macs for shape in shapes])[:, None] / 1e9 * speed * random.lognormal(0, 0.1, stored.shape)
    columns = {"bytes": stored, "ms": ms, "quality": losses[0], "alignment": losses[1]}
    limits = tuple(_limit(name, columns[name]) for name in tuple(SHARES)[:budgets])
    return Problem(
        tuple(shape.name for shape in shapes), (schemes,) * len(shapes),
        {name: values.ravel() for name, values in columns.items()}, {"quality": 1.0}, limits, _ties(shapes, schemes),
    )  # fmt: skip


def sdxl(budgets: int, schemes: tuple[str, ...] = SCHEMES_12, seed: int = 0) -> Problem:
    """Makes a problem of SDXL's 794 layers; with SCHEMES_12 it has 9528 candidates."""
    return problem_of(sdxl_shapes(), schemes, budgets, seed)


def large(groups: int = 5000, budgets: int = 2, seed: int = 0) -> Problem:
    """Makes a problem of repeated SDXL shapes with 30 schemes and no ties."""
    shapes = sdxl_shapes()
    many = tuple(
        Shape(f"{i // len(shapes)}.{shapes[i % len(shapes)].name}", shapes[i % len(shapes)].weight,
              shapes[i % len(shapes)].macs, i)
        for i in range(groups)
    )  # fmt: skip
    return problem_of(many, SCHEMES_30, budgets, seed)


def _bits(scheme: str) -> tuple[int, int]:
    if scheme == "keep":
        return 16, 16
    weight, _, activation = scheme[1:].partition("a")
    return int(weight.partition("g")[0]), int(activation)


def _limit(name: str, values: np.ndarray) -> Budget:
    least, most = values.min(axis=1).sum(), values.max(axis=1).sum()
    limit = least + SHARES[name] * (most - least)
    return Budget(name, int(limit) if values.dtype.kind == "i" else float(limit))


def _ties(shapes: tuple[Shape, ...], schemes: tuple[str, ...]) -> tuple[Tie, ...]:
    labels = tuple("a16" if scheme == "keep" else "a" + scheme.partition("a")[2] for scheme in schemes)
    families: dict[int, list[str]] = {}
    for shape in shapes:
        families.setdefault(shape.input, []).append(shape.name)
    return tuple(Tie(dict.fromkeys(names, labels)) for names in families.values() if len(names) > 1)


if __name__ == "__main__":
    rows = [json.dumps([shape.name, shape.weight, shape.macs, shape.input]) for shape in measure_sdxl()]
    SHAPES.write_text("[\n" + ",\n".join(rows) + "\n]\n")
