"""Arguments of calls: pictures that files name, objects of Python's, and steps that not every call takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from PIL import Image

import bitplan
from bitplan.planner.errors import UserError
from bitplan.planner.pipelines.calling import generation_used
from bitplan.planner.pipelines.conditions import conditions_in, labels_of
from bitplan.planner.pipelines.generation import Generation, arguments_of, check_call, generation_in, opened
from bitplan.planner.pipelines.sources import generation_of
from bitplan.planner.pipelines.subject import run_subject, subject_of
from tests import tiny
from tests.planner.pipelines.test_calling import TEXTS, Base, OneGenerator, number

torch.set_num_threads(1)


class Shifted(Base):
    """Adds the mean of a picture or of a tensor to every sample; takes no number of steps."""

    def __call__(self, prompt: Any, shift: Any = None, generator: Any = None, output_type: str = "pil") -> Any:
        added = shift.mean() if isinstance(shift, torch.Tensor) else shift.getpixel((0, 0))[0] / 255
        texts = [prompt] if isinstance(prompt, str) else prompt
        return (self.paint(torch.cat([number(text) for text in texts]) + added, generator),)


def shifted() -> Shifted:
    torch.manual_seed(0)
    return Shifted(torch.nn.Sequential(torch.nn.Linear(3, 3)))


def save(path: Path, colour: str) -> str:
    Image.new("RGB", (2, 2), colour).save(path)
    return path.name


def test_pictures_in_lists_lie_beside_the_file_that_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, other = tmp_path / "data", tmp_path / "other"
    folder.mkdir()
    other.mkdir()
    for path, colour in ((folder / "a.png", "red"), (folder / "b.png", "blue"), (tmp_path / "c.png", "lime")):
        save(path, colour)
    monkeypatch.chdir(other)
    (folder / "p.yaml").write_text("- {prompt: a, image: [a.png, b.png], more: {mask: [[b.png]]}, text: none.png}\n")
    (condition,) = conditions_in(folder / "p.yaml") or []
    assert condition["image"] == [str(folder / "a.png"), str(folder / "b.png")] and condition["text"] == "none.png"
    row = opened(condition)
    assert [picture.getpixel((0, 0)) for picture in row["image"]] == [(255, 0, 0), (0, 0, 255)]
    assert row["more"]["mask"][0][0].size == (2, 2) and row["text"] == "none.png"
    (folder / "p.yaml").write_text("- {prompt: a, image: [../c.png]}\n")
    with pytest.raises(UserError, match="below neither the folder of that file nor the current folder"):
        conditions_in(folder / "p.yaml")
    (folder / "a.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="cannot open the picture .*save it again as PNG"):
        opened([str(folder / "a.png")])


def test_objects_in_calls_are_kept_as_digests() -> None:
    """Of the same tensor the same one, of another one another; what is not held is named."""
    both = [subject_of(shifted(), Generation(options={"shift": torch.full((3,), value)})) for value in (1.0, 2.0)]
    one = Generation(options={"shift": torch.ones(3)}).to_json()
    assert one == Generation(options={"shift": torch.ones(3)}).to_json()
    assert one != Generation(options={"shift": torch.zeros(3)}).to_json() and set(one["options"]["shift"]) == {"sha256"}
    assert not torch.equal(*(run_subject(each, TEXTS, 0) for each in both))
    with pytest.raises(UserError, match="shift was an object of Python's .* holds only its digest"):
        generation_in(one)
    assert generation_in({"steps": 2, "guidance": None, "seed": 0}, seed=4) == Generation(2, seed=4)
    assert Generation(options={"ids": (1, 2)}).to_json()["options"] == {"ids": [1, 2]}


def test_labels_of_tensors_within_conditions_stay_the_same() -> None:
    rows = [{"image": [torch.arange(6.0).reshape(2, 3)], "prompt": "a"} for _ in range(2)]
    assert labels_of(rows)[0] == labels_of(rows)[1] != labels_of([rows[0] | {"prompt": "b"}])[0]


def test_pictures_in_calls_are_opened_by_their_paths(tmp_path: Path) -> None:
    save(tmp_path / "red.png", "red")
    generation = Generation(options={"shift": str(tmp_path / "red.png")})
    assert arguments_of(shifted(), TEXTS, generation)["shift"].getpixel((0, 0)) == (255, 0, 0)
    assert generation.to_json()["options"] == {"shift": str(tmp_path / "red.png")}
    with pytest.raises(UserError, match="red.png, which is not below the current folder"):
        generation_in(generation.to_json())


def test_default_steps_are_for_calls_that_take_them() -> None:
    """Given by the user, they are refused by name."""
    preset = generation_of("some/pipeline", None, None, 0)
    assert preset.steps == 20 and generation_of("some/pipeline", 20, None, 0).preset is False
    subject = subject_of(OneGenerator(torch.nn.Sequential(torch.nn.Linear(3, 3))), preset)
    assert run_subject(subject, TEXTS, 0).shape[0] == 3 and generation_used(subject.run, preset).steps is None
    with pytest.raises(UserError, match="OneGenerator has no argument num_inference_steps; its arguments are prompt"):
        run_subject(subject_of(subject.run.pipe, generation_of("some/pipeline", 20, None, 0)), TEXTS, 0)
    with pytest.raises(UserError, match="no argument output_typ; did you mean output_type"):
        run_subject(subject_of(subject.run.pipe, Generation(options={"output_typ": "np"})), TEXTS, 0)


@pytest.mark.parametrize(
    ("condition", "generation", "words"),
    [
        ({"prompt": "a", "generator": 5}, Generation(), "a condition gives generator, which is set by --seed"),
        ({"prompt": "a", "num_inference_steps": 9}, Generation(2), "num_inference_steps, which is set by --steps"),
        ({"prompt": "a", "guidance_scale": 9.0}, Generation(2, 1.5), "guidance_scale, which is set by --guidance"),
        ("a", Generation(options={"prompt": "b"}), "gives prompt, and --call prompt gives it for all"),
        ({"prompt": False}, Generation(), "the prompt False is of type bool, not a text; put it in quotes"),
        (
            {"a portrait": "an old man"},
            Generation(),
            "no argument a portrait; if it begins a prompt, put the prompt in q",
        ),
    ],
)
def test_an_argument_is_given_once_and_a_prompt_is_a_text(condition: Any, generation: Generation, words: str) -> None:
    with pytest.raises(UserError, match=words):
        arguments_of(tiny.build_pipeline(), [condition], generation)


def test_what_is_set_for_all_may_be_given_with_a_condition_alone() -> None:
    given = arguments_of(tiny.build_pipeline(), [{"prompt": "a", "guidance_scale": 9.0}], Generation(2))
    assert given["guidance_scale"] == [9.0] and given["num_inference_steps"] == 2


@pytest.mark.parametrize("name", ["generator", "num_inference_steps", "guidance_scale", "batch_size"])
def test_arguments_that_other_options_set_are_refused_before_anything_is_loaded(name: str) -> None:
    with pytest.raises(UserError, match=f"{name} is set by .*; leave --call {name} out"):
        generation_of("some/pipeline", None, None, 0, {name: 5})


@pytest.mark.parametrize("name", ["eta", "guidance_rescale", "height", "num_images_per_prompt"])
def test_a_text_is_refused_where_the_call_takes_a_number(
    name: str, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the weights are read."""
    monkeypatch.setattr(DiffusionPipeline, "from_pretrained", None)
    for run in (
        lambda: bitplan.profile(str(tiny_folder), tmp_path / "x.profile", call={name: "abc"}),
        lambda: bitplan.paint("scenes@12%", str(tiny_folder), ["x"], tmp_path / "x.png", call={name: "abc"}),
    ):
        with pytest.raises(UserError, match=f"takes a number as {name}, not the text 'abc'; give one, such as {name}="):
            run()


def test_a_text_is_taken_where_the_call_may_take_one() -> None:
    check_call(StableDiffusionPipeline, {"negative_prompt": "abc", "eta": 0.5, "height": 64, "output_type": "np"})


def test_one_side_of_a_picture_that_has_no_effect_alone_is_named(pipe: Any) -> None:
    """Stable Diffusion takes both sides or neither."""

    def size(**options: int) -> tuple[int, ...]:
        return tuple(run_subject(subject_of(pipe, Generation(1, options=options)), ["a cat"], 0).shape[-2:])

    assert size(height=32, width=16) == (32, 16) and size(height=tiny.SIDE) == (tiny.SIDE, tiny.SIDE)
    for given, other in (("height", "width"), ("width", "height")):
        with pytest.raises(UserError, match=f"--call {given}=32 had no effect: .* 16 x 16 px; give --call {other}="):
            size(**{given: 32})
