"""Draws scenes as 64x64 RGB pictures in numpy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bitplan.planner.scenes.grammar import PALETTE, SHAPES, Scene

SIDE = 64
RADIUS = {"small": 6.5, "large": 12.0}  # px: half the extent of an object
_CROSS_ARM = 0.36  # half-width of a cross's arm, in radii


def _distance(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns the signed distance (negative inside) to a shape of half-extent 1 around 0; y points down."""
    if shape == "circle":
        return np.hypot(x, y) - 1
    ax, ay = np.abs(x), np.abs(y)
    if shape == "square":
        return np.maximum(ax, ay) - 1
    if shape == "cross":
        bar = np.maximum(ax - 1, ay - _CROSS_ARM)
        return np.minimum(bar, np.maximum(ay - 1, ax - _CROSS_ARM))
    if shape == "triangle":  # apex up, base from (-1, 1) to (1, 1)
        slope = (2 * ax - y - 1) / np.sqrt(5)
        return np.maximum(slope, y - 1)
    raise ValueError(f"there is no shape {shape!r}; use one of {', '.join(SHAPES)}")


def coverage(shape: str, centre: tuple[float, float], radius: float, side: int = SIDE) -> np.ndarray:
    """Returns the share of each pixel that the shape covers, (side, side) in 0..1, anti-aliased over one pixel."""
    pixel = np.arange(side) + 0.5
    x, y = (pixel[None, :] - centre[0]) / radius, (pixel[:, None] - centre[1]) / radius
    return np.clip(0.5 - _distance(shape, x, y) * radius, 0, 1)


def _centres(scene: Scene, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Draws the centres: two objects are half a picture apart, one is a quarter from the middle, plus jitter."""
    dx, dy = scene.offset
    if len(scene.things) == 1:
        jx, jy = rng.uniform(-3, 3, size=2)
        return [(SIDE / 2 + dx * SIDE / 4 + jx, SIDE / 2 + dy * SIDE / 4 + jy)]
    centres = []
    for sign in (1, -1):
        along, across = rng.uniform(-1.5, 1.5), rng.uniform(-5, 5)
        jx, jy = (along, across) if dx else (across, along)
        centres.append((SIDE / 2 + sign * dx * SIDE / 4 + jx, SIDE / 2 + sign * dy * SIDE / 4 + jy))
    return centres


def draw_scene(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Draws one scene, (64, 64, 3) float32 in 0..1."""
    picture = np.broadcast_to(np.array(PALETTE[scene.background], np.float32) / 255, (SIDE, SIDE, 3))
    for thing, centre in zip(scene.things, _centres(scene, rng), strict=True):
        radius = RADIUS[thing.size] * rng.uniform(0.93, 1.07)
        alpha = coverage(thing.shape, centre, radius)[..., None].astype(np.float32)
        picture = picture * (1 - alpha) + alpha * np.array(PALETTE[thing.colour], np.float32) / 255
    return picture


def draw_scenes(scenes: Sequence[Scene], rng: np.random.Generator) -> np.ndarray:
    """Draws scenes, (len(scenes), 64, 64, 3) uint8."""
    pictures = np.stack([draw_scene(scene, rng) for scene in scenes])
    return np.rint(pictures * 255).astype(np.uint8)
