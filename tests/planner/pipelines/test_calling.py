"""How pipelines are called: found out by the first run, and the same results in every way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor, nn

import bitplan
from bitplan.planner.errors import CallError, UserError
from bitplan.planner.measurement.replay import build_replay
from bitplan.planner.pipelines.generation import Generation
from bitplan.planner.pipelines.results import tensor_of
from bitplan.planner.pipelines.subject import output_of, run_subject, subject_of
from bitplan.planner.pipelines.traced import examine
from bitplan.planner.profiles.profile import open_profile

torch.set_num_threads(1)
SIDE = 12
TEXTS = ["a", "bb", "ccc"]
PICTURES = [{"image": Image.new("RGB", (SIDE, SIDE), colour)} for colour in ("red", "lime", "blue")]


class Base(DiffusionPipeline):
    """Denoises twice. `calls` holds the forms of its calls."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.register_modules(net=net)
        self.calls: list[Any] = []

    def paint(self, known: Tensor, generator: Any) -> Tensor:
        generators = generator if isinstance(generator, list) else [generator]
        if len(generators) not in (1, len(known)):
            raise ValueError(f"{len(generators)} generators for {len(known)} samples")
        rows = [torch.randn(1, 3, generator=generators[i % len(generators)]) for i in range(len(known))]
        x = torch.cat(rows) + known
        for _ in range(2):
            x = x + 0.1 * self.net(x)
        return x.sigmoid()[:, :, None, None].expand(-1, -1, SIDE, SIDE)


def number(text: str) -> Tensor:
    return torch.full((1, 3), float(len(text)))


def colour(image: Image.Image) -> Tensor:
    if not isinstance(image, Image.Image):
        raise ValueError("`image` has to be one picture")
    return torch.from_numpy(np.asarray(image, np.float32) / 255).mean((0, 1))[None]


class OneGenerator(Base):
    def __call__(
        self, prompt: str | list[str], generator: torch.Generator | None = None, output_type: str = "pil"
    ) -> Any:
        self.calls.append(prompt)
        texts = [prompt] if isinstance(prompt, str) else prompt
        if not isinstance(generator, torch.Generator):
            raise TypeError(f"generator is a {type(generator).__name__}")
        return (self.paint(torch.cat([number(text) for text in texts]), generator),)


class OnePicture(Base):
    def __call__(self, image: Any, generator: Any = None, output_type: str = "pil") -> Any:
        self.calls.append(image)
        return (self.paint(colour(image), generator),)


class Mixing(Base):
    """Reads a list of pictures as several inputs of each sample, without a word."""

    def __call__(self, image: Any, generator: Any = None, output_type: str = "pil") -> Any:
        self.calls.append(image)
        images = image if isinstance(image, list) else [image]
        known = torch.cat([colour(each) for each in images]).mean(0, keepdim=True)
        return (self.paint(known.expand(len(images), -1), generator),)


class Several(BaseOutput):
    rgb: Any
    depth: Any


class OwnTypes(Base):
    """Knows neither tensors nor a bare prompt."""

    def __call__(self, prompt: list[str], generator: Any = None, output_type: str = "pil") -> Several:
        self.calls.append(output_type)
        if not isinstance(prompt, list):
            raise ValueError("`prompt` has to be a list")
        out = self.paint(torch.cat([number(text) for text in prompt]), generator).permute(0, 2, 3, 1).numpy()
        if output_type not in ("pil", "frames"):
            raise ValueError(f"output type {output_type} is unknown")
        pictures = [Image.fromarray((picture * 255).round().astype(np.uint8)) for picture in out]
        return Several(rgb=[[each, each] for each in pictures] if output_type == "frames" else pictures, depth=None)


class Views(Base):
    """Gives two rows for each prompt; with several prompts, in an order of its own where `mixing`."""

    mixing = False

    def __call__(self, prompt: str | list[str], generator: Any = None, output_type: str = "pil") -> Any:
        texts = [prompt] if isinstance(prompt, str) else prompt
        out = self.paint(torch.cat([number(text) for text in texts]), generator)
        views = torch.cat([out, 1 - out]) if self.mixing else torch.stack([out, 1 - out], 1).flatten(0, 1)
        return (views,)


class MixedViews(Views):
    mixing = True


class Normals(Base):
    def __call__(self, prompt: str | list[str], generator: Any = None, output_type: str = "pil") -> Any:
        texts = [prompt] if isinstance(prompt, str) else prompt
        return (2 * self.paint(torch.cat([number(text) for text in texts]), generator) - 1,)


def made(kind: type[Base], **options: Any) -> Any:
    torch.manual_seed(0)
    return subject_of(kind(nn.Sequential(nn.Linear(3, 3))), Generation(options=options))


@pytest.mark.parametrize(
    "kind, conditions, options",
    [(OneGenerator, TEXTS, {}), (OnePicture, PICTURES, {}), (Mixing, PICTURES, {}), (OwnTypes, TEXTS, {}),
     (OwnTypes, TEXTS, {"output_type": "frames"})],
)  # fmt: skip
def test_each_condition_gives_the_same_in_every_way(
    kind: type[Base], conditions: list[Any], options: dict[str, Any]
) -> None:
    """Together, apart, and alone by a new subject: the noise of condition i is of seed + i."""
    subject = made(kind, **options)
    together = run_subject(subject, conditions, 5)
    alone = torch.cat([run_subject(made(kind, **options), [one], 5 + i) for i, one in enumerate(conditions)])
    torch.testing.assert_close(together, alone)
    assert len({round(float(row.sum()), 4) for row in together}) == 3
    torch.testing.assert_close(run_subject(subject, conditions, 5), together)
    pipe = made(kind).run.pipe
    assert together.shape[1:] == ((2, 3, SIDE, SIDE) if options else (3, SIDE, SIDE)) and pipe.calls == []


@pytest.mark.parametrize("kind", (Views, MixedViews))
def test_several_rows_of_a_condition_are_one_output(kind: type[Base]) -> None:
    subject = made(kind)
    together = run_subject(subject, TEXTS, 5)
    assert together.shape == (3, 2, 3, SIDE, SIDE)
    torch.testing.assert_close(together[:, 1], 1 - together[:, 0])
    alone = torch.cat([run_subject(made(kind), [text], 5 + i) for i, text in enumerate(TEXTS)])
    torch.testing.assert_close(together, alone)
    assert subject.run.together.together is (kind is Views)


def test_pictures_outside_of_0_to_1_are_arrays() -> None:
    """Such as normals, from a pipeline; for a function of the user's own it is an error."""
    subject = made(Normals)
    out = run_subject(subject, TEXTS, 0)
    assert float(out.min()) < 0 and output_of(subject, out) == "array"
    assert output_of(subject, out / 2 + 0.5) == "images"
    assert output_of(replace(subject, run=lambda *_: out), out) == "images"


class Unconditional(Base):
    def __call__(self, batch_size: int = 1, num_inference_steps: int = 2, generator: Any = None) -> Any:
        self.calls.append(batch_size)
        return (self.paint(torch.zeros(batch_size, 3), generator),)


def test_conditions_without_arguments_are_a_batch_also_with_steps() -> None:
    subject = subject_of(Unconditional(nn.Sequential(nn.Linear(3, 3))), Generation(2))
    run_subject(subject, [{}, {}, {}], 0)
    assert subject.run.pipe.calls == [3]


def test_what_works_is_remembered() -> None:
    """After the first run nothing is tried: as many calls as conditions, and an error is raised at once."""
    subject = made(OnePicture)
    pipe = subject.run.pipe
    run_subject(subject, PICTURES, 0)
    pipe.calls.clear()
    run_subject(subject, PICTURES, 0)
    assert pipe.calls == [row["image"] for row in PICTURES]
    with pytest.raises(CallError, match="ValueError: `image` has to be one picture"):
        run_subject(subject, [{"image": 3}], 0)
    assert len(pipe.calls) == 4


def test_an_error_that_is_no_refusal_is_that_of_the_single_call() -> None:
    """One of three conditions is wrong: not a word of lists, and nothing is taken for known."""
    subject = made(OnePicture)
    with pytest.raises(CallError, match="ValueError: `image` has to be one picture"):
        run_subject(subject, [*PICTURES[:2], {"image": "none"}], 0)
    assert subject.run.together is None
    with pytest.raises(UserError, match="has no argument imag; did you mean image"):
        run_subject(made(OnePicture), [{"imag": 1}], 0)


def test_the_users_own_output_type_is_asked_for() -> None:
    pipe = made(OwnTypes, output_type="frames").run
    pipe(TEXTS, 0)
    assert set(pipe.pipe.calls) == {"frames"}


def test_refused_calls_leave_no_trace() -> None:
    """The layer counts and recorded calls are those of the calls that worked."""
    for kind, conditions in ((OwnTypes, TEXTS), (OnePicture, PICTURES)):
        subject = made(kind)
        assert [layer.call_count for layer in examine(subject, conditions).graph.layers] == [2]
        replay = build_replay(made(kind), [subject.modules["net"]], conditions, 0, 4)
        assert len(replay.calls) == 0  # of another subject's module
        subject = made(kind)
        replay = build_replay(subject, [subject.modules["net"]], conditions, 0, 4)
        divided = kind is OnePicture
        assert len(replay.calls) == (6 if divided else 2)
        assert replay.reference.owners == ((0, 0, 1, 1, 2, 2) if divided else (0, 1, 2) * 2)


def test_a_pipeline_of_one_condition_a_call_is_profiled_and_planned(tmp_path: Path) -> None:
    """By probes, a condition a round, as exhaustively."""
    means = []
    for method in ("probes", "exhaustive"):
        out = bitplan.profile(
            made(OnePicture), tmp_path / f"{method}.profile", prompts=PICTURES, schemes=["w4a16"], method=method,
            timesteps=1, probes=512, checks=0,
        )  # fmt: skip
        with open_profile(out) as store:
            measured = {m.metric: m for m in store.measurements()}
        assert {m.source for m in measured.values()} == {method}
        means.append(measured["nsr"].mean)
    assert means[0] == pytest.approx(means[1], rel=0.2)
    found = bitplan.solve(out, tmp_path / "p.plan.yaml", uniform="w4a16")
    assert set(found.schemes.values()) == {"w4a16"}


@pytest.mark.parametrize(
    "value, shape, largest",
    [
        ([Image.new("RGB", (4, 2), "white")], (1, 3, 2, 4), 1.0),
        ([[Image.new("RGB", (4, 2), "white")] * 5], (1, 5, 3, 2, 4), 1.0),
        ([Image.new("I;16", (4, 2), 65535)], (1, 2, 4), 1.0),
        ([[np.ones((2, 4, 3))] * 5], (1, 5, 3, 2, 4), 1.0),
        ([[torch.ones(2, 7)] * 5], (1, 5, 2, 7), 1.0),
    ],
)
def test_pictures_and_lists_become_one_tensor(value: Any, shape: tuple[int, ...], largest: float) -> None:
    out = tensor_of(value)
    assert tuple(out.shape) == shape and float(out.max()) == largest
