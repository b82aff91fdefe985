"""The grammar of the embedded pipeline: scenes, their captions, and the split into training and held-out scenes.

A scene has one or two flat objects on a flat background. Its caption states everything that the reader
(`bitplan.planner.scenes.reader`) checks: size, colour and shape of each object, place or relation, background.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SHAPES = ("circle", "square", "triangle", "cross")
SIZES = ("small", "large")


PALETTE = {  # name -> sRGB 0..255
    "red": (214, 36, 36),
    "green": (36, 160, 64),
    "blue": (36, 72, 214),
    "yellow": (242, 214, 48),
    "purple": (140, 48, 176),
    "orange": (242, 130, 24),
    "white": (245, 245, 245),
    "black": (16, 16, 16),
}


COLOURS = tuple(PALETTE)


PLACES = {  # phrase -> offset of the centre, in units of 1/4 picture, (x, y) with y down
    "in the center": (0, 0),
    "on the left": (-1, 0),
    "on the right": (1, 0),
    "at the top": (0, -1),
    "at the bottom": (0, 1),
}


RELATIONS = {  # phrase -> offset of the first object's centre
    "above": (0, -1),
    "below": (0, 1),
    "left of": (-1, 0),
    "right of": (1, 0),
}


TRAIN, HELD_OUT, ANY = "train", "held-out", "any"


@dataclass(frozen=True)
class SceneObject:
    """One object of a scene.

    Attributes:
        size: a name of SIZES.
        colour: a name of COLOURS.
        shape: a name of SHAPES.
    """

    size: str
    colour: str
    shape: str

    @property
    def held_out(self) -> bool:
        return self in HELD_OUT_THINGS

    def __str__(self) -> str:
        return f"{self.size} {self.colour} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """A scene.

    Attributes:
        things: one or two objects.
        where: a key of PLACES for one object, of RELATIONS for two.
        background: a name of COLOURS.
    """

    things: tuple[SceneObject, ...]
    where: str
    background: str

    @property
    def offset(self) -> tuple[int, int]:
        return (PLACES if len(self.things) == 1 else RELATIONS)[self.where]

    @property
    def held_out(self) -> bool:
        return any(thing.held_out for thing in self.things)

    @property
    def caption(self) -> str:
        ground = f"on a {self.background} background"
        if len(self.things) == 1:
            return f"a {self.things[0]} {self.where} {ground}"
        first, second = self.things
        return f"a {first} {self.where} a {second} {ground}"


def _held_out_things() -> frozenset[SceneObject]:
    """Returns 10 of the 64 (size, colour, shape) triples (15.6 %); training has every pair of attributes."""
    cells = [((c // 2) % 2, c, (c + c // 4) % 4) for c in range(len(COLOURS))] + [(1, 0, 2), (0, 7, 3)]
    return frozenset(SceneObject(SIZES[s], COLOURS[c], SHAPES[k]) for s, c, k in cells)


HELD_OUT_THINGS = _held_out_things()
ALL_THINGS = tuple(SceneObject(s, c, k) for s in SIZES for c in COLOURS for k in SHAPES)


def sample_scene(rng: np.random.Generator, things: int, split: str = TRAIN) -> Scene:
    """Draws a scene with 1 or 2 objects.

    things: number of objects; split: TRAIN has no held-out object, HELD_OUT at least one, ANY has no restriction. Two
    objects differ in shape or colour, and no object has the background's colour.
    """
    while True:
        chosen = tuple(ALL_THINGS[i] for i in rng.integers(len(ALL_THINGS), size=things))
        where = str(rng.choice(list(PLACES if things == 1 else RELATIONS)))
        scene = Scene(chosen, where, COLOURS[rng.integers(len(COLOURS))])
        if scene.background in {t.colour for t in chosen}:
            continue
        if things == 2 and (chosen[0].colour, chosen[0].shape) == (chosen[1].colour, chosen[1].shape):
            continue
        if split == ANY or scene.held_out == (split == HELD_OUT):
            return scene


def held_out_scenes(count: int, things: int, seed: int = 0) -> list[Scene]:
    """Returns `count` distinct held-out scenes, the same for the same seed."""
    rng = np.random.default_rng([seed, things, 1])
    scenes: dict[Scene, None] = {}
    while len(scenes) < count:
        scenes[sample_scene(rng, things, HELD_OUT)] = None
    return list(scenes)


def scene_of(caption: str) -> Scene | None:
    """Returns the scene of a caption of this grammar, or None for any other text."""
    body, separator, background = caption.removeprefix("a ").removesuffix(" background").rpartition(" on a ")
    if not separator or background not in COLOURS:
        return None
    for where, count in [*((p, 1) for p in PLACES), *((r, 2) for r in RELATIONS)]:
        parts = [body.removesuffix(f" {where}")] if count == 1 else body.split(f" {where} a ")
        words = [part.split(" ") for part in parts]
        if len(words) == count and all(len(w) == 3 for w in words):
            scene = Scene(tuple(SceneObject(*w) for w in words), where, background)
            return scene if scene.caption == caption and set(scene.things) <= set(ALL_THINGS) else None
    return None
