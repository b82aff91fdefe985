"""The embedded pipeline: grammar, drawing, reader and files. Its pictures are not tested here."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import DiffusionPipeline
from hypothesis import given
from hypothesis import strategies as st

import bitplan.planner.scenes
from bitplan.planner.pipelines.encoder import load_encoder
from bitplan.planner.pipelines.generation import Generation
from bitplan.planner.pipelines.sources import generate, load_pipeline
from bitplan.planner.scenes import SCENES
from bitplan.planner.scenes.draw import SIDE, draw_scenes
from bitplan.planner.scenes.grammar import (
    ALL_THINGS,
    ANY,
    COLOURS,
    HELD_OUT,
    HELD_OUT_THINGS,
    PLACES,
    RELATIONS,
    SHAPES,
    SIZES,
    TRAIN,
    Scene,
    SceneObject,
    sample_scene,
    scene_of,
)
from bitplan.planner.scenes.reader import shows
from bitplan.plans.layers.modules import kind_of

DRAWN = 250  # scenes of each split

things = st.builds(SceneObject, st.sampled_from(SIZES), st.sampled_from(COLOURS), st.sampled_from(SHAPES))
scenes = st.one_of(
    st.builds(Scene, st.tuples(things), st.sampled_from(list(PLACES)), st.sampled_from(COLOURS)),
    st.builds(Scene, st.tuples(things, things), st.sampled_from(list(RELATIONS)), st.sampled_from(COLOURS)),
)


@pytest.fixture(scope="module")
def drawn() -> list[tuple[Scene, np.ndarray]]:
    rng = np.random.default_rng(7)
    some = [sample_scene(rng, 1 + i % 2, split) for split in (TRAIN, HELD_OUT) for i in range(DRAWN)]
    return list(zip(some, draw_scenes(some, rng), strict=True))


@given(scenes)
def test_captions_read_back(scene: Scene) -> None:
    assert scene_of(scene.caption) == scene


@given(scenes, st.data())
def test_no_other_text_is_a_caption(scene: Scene, data: st.DataObject) -> None:
    words = scene.caption.split(" ")
    place = data.draw(st.integers(0, len(words) - 1))
    broken = " ".join([*words[:place], data.draw(st.sampled_from(["", "huge", "A"])), *words[place + 1 :]])
    assert scene_of(broken) is None


@pytest.mark.parametrize("text", ["", "a", "a cat", "a small red circle", "a  on a  background"])
def test_no_captions(text: str) -> None:
    assert scene_of(text) is None


def test_held_out_things_are_few_and_every_pair_of_attributes_is_trained_on() -> None:
    assert 0.10 <= len(HELD_OUT_THINGS) / len(ALL_THINGS) <= 0.20
    trained = set(ALL_THINGS) - HELD_OUT_THINGS
    for one, two in itertools.combinations((SIZES, COLOURS, SHAPES), 2):
        for pair in itertools.product(one, two):
            assert any(set(pair) <= {t.size, t.colour, t.shape} for t in trained), pair


@pytest.mark.parametrize("split", [TRAIN, HELD_OUT, ANY])
@pytest.mark.parametrize("count", [1, 2])
def test_samples_are_of_their_split(split: str, count: int) -> None:
    rng = np.random.default_rng(0)
    some = [sample_scene(rng, count, split) for _ in range(300)]
    assert {len(scene.things) for scene in some} == {count}
    assert {scene.held_out for scene in some} == {TRAIN: {False}, HELD_OUT: {True}, ANY: {True, False}}[split]
    assert all(thing.colour != scene.background for scene in some for thing in scene.things)


def test_the_reader_sees_what_was_drawn(drawn: list[tuple[Scene, np.ndarray]]) -> None:
    assert len(drawn) == 500
    for split in (False, True):
        seen = [shows(picture, scene) for scene, picture in drawn if scene.held_out == split]
        assert np.mean(seen) >= 0.99


def wrong(scene: Scene) -> Iterator[Scene]:
    """Returns the scene with one attribute changed, in all ways that leave a valid scene."""
    for i, thing in enumerate(scene.things):
        for name, values in (("size", SIZES), ("colour", COLOURS), ("shape", SHAPES)):
            for value in values:
                changed = dataclasses.replace(thing, **{name: value})
                yield dataclasses.replace(scene, things=(*scene.things[:i], changed, *scene.things[i + 1 :]))
    for where in PLACES if len(scene.things) == 1 else RELATIONS:
        yield dataclasses.replace(scene, where=where)
    for background in COLOURS:
        yield dataclasses.replace(scene, background=background)


def test_the_reader_says_no_to_captions_with_one_attribute_changed(drawn: list[tuple[Scene, np.ndarray]]) -> None:
    for scene, picture in drawn[:: len(drawn) // 25]:
        answers = [shows(picture, other) for other in wrong(scene) if other != scene]
        assert len(answers) > 18
        assert not any(answers), scene


def test_the_reader_says_no_to_things_missing_or_too_many(drawn: list[tuple[Scene, np.ndarray]]) -> None:
    pairs = [(scene, picture) for scene, picture in drawn if len(scene.things) == 2][:20]
    for scene, picture in pairs:
        for thing in scene.things:
            assert not any(shows(picture, Scene((thing,), where, scene.background)) for where in PLACES)
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    blank = np.full((SIDE, SIDE, 3), 245, np.uint8)
    for scene, _ in drawn[:40]:
        assert not shows(noise, scene)
        assert not shows(blank, scene)


def test_drawing_repeats(drawn: list[tuple[Scene, np.ndarray]]) -> None:
    some = [scene for scene, _ in drawn[:4]]
    first, again, other = (draw_scenes(some, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert first.shape == (4, SIDE, SIDE, 3) and first.dtype == np.uint8
    assert (first == again).all()
    assert (first != other).any()


@pytest.fixture(scope="module")
def embedded() -> Any:
    return load_pipeline(SCENES)


def test_the_embedded_pipeline_is_diffusers_own() -> None:
    assert type(DiffusionPipeline.from_pretrained(bitplan.planner.scenes.PIPELINE_FOLDER)).__module__.startswith(
        "diffusers."
    )


def test_the_denoiser_has_many_layers_on_several_resolutions(embedded: Any) -> None:
    seen: dict[str, set[int]] = {"linear": set(), "conv2d": set()}
    layers = [(module, kind) for module in embedded.unet.modules() if (kind := kind_of(module))]
    handles = [
        module.register_forward_pre_hook(lambda _, args, kind=kind: seen[kind].add(args[0].shape[-1]))
        for module, kind in layers
    ]
    image = generate(embedded, ["a large red circle on the left on a white background"], Generation(1, 2.5))
    for handle in handles:
        handle.remove()
    assert len(layers) >= 100
    assert {kind for _, kind in layers} == {"linear", "conv2d"}
    assert len(seen["conv2d"]) >= 2
    assert image.shape == (1, 3, SIDE, SIDE)
    assert image.isfinite().all()


def test_the_judge_of_alignment_is_there(embedded: Any) -> None:
    encoder = load_encoder(SCENES)
    image, text = encoder.image(generate(embedded, ["a cat"], Generation(1))), encoder.text(["a cat"])
    assert image.shape == text.shape


def test_the_package_data_is_small() -> None:
    files = [path for path in Path(bitplan.planner.scenes.__file__).parent.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 40 * 10**6
