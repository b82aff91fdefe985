"""The scene reader: recognises the scene of a picture from its pixels alone.

It is the end metric of the embedded pipeline (*scene accuracy*: the share of prompts whose picture shows the prompt's
scene) and is never used for planning.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from bitplan.planner.scenes.draw import RADIUS, coverage
from bitplan.planner.scenes.grammar import COLOURS, PALETTE, PLACES, RELATIONS, SHAPES, Scene, SceneObject

_RGB = np.array([PALETTE[c] for c in COLOURS], float)
_MIN_PIXELS = 20  # smaller regions are noise; the smallest object covers 90 pixels
_MIN_IOU = 0.6  # a blob below this has no shape; drawn scenes score above 0.85
_SIZE_EDGE = RADIUS["small"] + RADIUS["large"]  # px of extent (2 radii) halfway between small and large


@dataclass(frozen=True)
class Blob:
    """An object that was recognised in a picture.

    Attributes:
        thing: the object.
        centre: (x, y) in px.
        fit: intersection over union with the best shape.
    """

    thing: SceneObject
    centre: tuple[float, float]
    fit: float


@dataclass(frozen=True)
class SceneReading:
    """The contents of a picture.

    Attributes:
        background: its colour.
        blobs: the recognised objects.
        unclear: number of blobs without a shape.
    """

    background: str
    blobs: tuple[Blob, ...]
    unclear: int


def _nearest_colour(rgb: np.ndarray) -> np.ndarray:
    """Returns the index of the palette colour nearest to each (..., 3) pixel."""
    return np.linalg.norm(rgb[..., None, :] - _RGB, axis=-1).argmin(-1)


def _fit_shape(mask: np.ndarray, centre: tuple[float, float], radius: float) -> tuple[str, float]:
    """Returns the shape whose mask of that extent overlaps best, and its intersection over union."""
    scores = {}
    for shape in SHAPES:
        ideal = coverage(shape, centre, radius, mask.shape[0]) > 0.5
        scores[shape] = float((mask & ideal).sum() / max((mask | ideal).sum(), 1))
    best = max(scores, key=scores.__getitem__)
    return best, scores[best]


def read_picture(picture: np.ndarray) -> SceneReading:
    """Recognises the contents of a picture, (side, side, 3) uint8."""
    rgb = picture.astype(float)
    colour = _nearest_colour(rgb)
    rim = np.concatenate([colour[0], colour[-1], colour[:, 0], colour[:, -1]])
    ground = int(np.bincount(rim, minlength=len(COLOURS)).argmax())
    # a pixel belongs to an object if its distance from the background is about half of that of a palette colour
    away = np.linalg.norm(rgb - _RGB[ground], axis=-1)
    labels, count = ndimage.label(away > 60, structure=np.ones((3, 3)))
    blobs, unclear = [], 0
    for label in range(1, count + 1):
        mask = labels == label
        if mask.sum() < _MIN_PIXELS:
            continue
        core = ndimage.binary_erosion(mask) if mask.sum() > 3 * _MIN_PIXELS else mask
        blob = _read_blob(mask, colour[core] if core.any() else colour[mask], away)
        blobs.append(blob) if blob.fit >= _MIN_IOU else None
        unclear += blob.fit < _MIN_IOU
    return SceneReading(COLOURS[ground], tuple(blobs), unclear)


def _read_blob(mask: np.ndarray, colours: np.ndarray, away: np.ndarray) -> Blob:
    """Recognises the object in `mask`; its edge is where `away` falls to half of its median inside."""
    hue = COLOURS[int(np.bincount(colours, minlength=len(COLOURS)).argmax())]
    mask = mask & (away > np.median(away[mask]) / 2)
    rows, cols = np.nonzero(mask)
    top, bottom, left, right = rows.min(), rows.max() + 1, cols.min(), cols.max() + 1
    centre = ((left + right) / 2, (top + bottom) / 2)
    extent = ((right - left) + (bottom - top)) / 2
    shape, fit = _fit_shape(mask, centre, extent / 2)
    return Blob(SceneObject("small" if extent < _SIZE_EDGE else "large", hue, shape), centre, fit)


def _direction(dx: float, dy: float, names: dict[str, tuple[int, int]], dead: float) -> str | None:
    """Returns the name of the main direction of (dx, dy) px; within `dead` px of the origin that of (0, 0)."""
    if max(abs(dx), abs(dy)) < dead:
        unit = (0, 0)
    else:
        unit = (int(np.sign(dx)), 0) if abs(dx) >= abs(dy) else (0, int(np.sign(dy)))
    return next((name for name, offset in names.items() if offset == unit), None)


def shows(picture: np.ndarray, scene: Scene) -> bool:
    """Returns whether the picture shows exactly the scene's objects at their places on its background."""
    reading = read_picture(picture)
    if reading.unclear or reading.background != scene.background or len(reading.blobs) != len(scene.things):
        return False
    blobs = sorted(reading.blobs, key=lambda blob: blob.thing != scene.things[0])
    if tuple(blob.thing for blob in blobs) != scene.things:
        return False
    side = picture.shape[0]
    if len(blobs) == 1:
        (x, y), origin, names = blobs[0].centre, side / 2, PLACES
        return _direction(x - origin, y - origin, names, side / 8) == scene.where
    (x0, y0), (x1, y1) = blobs[0].centre, blobs[1].centre
    return _direction(x0 - x1, y0 - y1, RELATIONS, 0) == scene.where
