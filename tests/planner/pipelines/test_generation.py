"""Calls of pipelines: gradients through what torch would not let them, and conditions that no file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch import Tensor, nn

import bitplan
from bitplan.planner.errors import UserError
from bitplan.planner.pipelines.conditions import labels_of
from bitplan.planner.pipelines.generation import Generation, outputs_of
from bitplan.planner.pipelines.subject import conditions_in, holding, subject_of
from bitplan.planner.profiles.profile import open_profile
from bitplan.sensitivity.probes.unroll import rehearse, unroll
from bitplan.sensitivity.table import MeasurementError
from tests.planner.pipelines.toy_subjects import made

torch.set_num_threads(1)


class Painter(DiffusionPipeline):
    """Gives pictures as arrays, channels last, whatever it is asked for."""

    def __init__(self, brush: nn.Module) -> None:
        super().__init__()
        self.register_modules(brush=brush)

    @torch.no_grad()
    def __call__(self, batch_size: int = 1, rows: int = 4) -> tuple[np.ndarray]:
        drawn = self.brush(torch.ones(batch_size, 3)).sigmoid()
        pictures = drawn[:, :, None, None].expand(-1, -1, rows, 5)
        return (pictures.cpu().permute(0, 2, 3, 1).float().numpy(),)


class Studio(DiffusionPipeline):
    """Made of another pipeline, whose call says `torch.no_grad`, too. Adds its own tensor, or nothing, to what it
    gets as an array."""

    def __init__(self, brush: nn.Module, painter: DiffusionPipeline) -> None:
        super().__init__()
        self.register_modules(brush=brush)
        self.painter = painter

    @torch.no_grad()
    def __call__(self, batch_size: int = 1, own: bool = False) -> tuple[Tensor]:
        got = torch.as_tensor(self.painter(batch_size)[0]).movedim(-1, 1)
        return (got + self.brush(torch.ones(batch_size, 3))[:, :, None, None] if own else got,)


class Tracer(Painter):
    """Gives them as tensors."""

    @torch.no_grad()
    def __call__(self, batch_size: int = 1) -> tuple[Tensor]:
        return (self.brush(torch.ones(batch_size, 3))[:, None, None, :],)


def test_arrays_keep_their_gradients() -> None:
    torch.manual_seed(0)
    pipe = Painter(nn.Linear(3, 3))
    with torch.enable_grad():
        traced = outputs_of(pipe, [{}, {}], Generation())
    with torch.no_grad():
        plain = outputs_of(pipe, [{}, {}], Generation())
    assert traced.shape == (2, 3, 4, 5) and torch.equal(traced, plain) and not plain.requires_grad
    (found,) = torch.autograd.grad(traced.sum(), [pipe.brush.bias])
    drawn = pipe.brush(torch.ones(3)).sigmoid().detach()
    torch.testing.assert_close(found, 2 * 4 * 5 * drawn * (1 - drawn))


def test_gradients_flow_through_pipelines_within_pipelines() -> None:
    """The classes are afterwards as they were."""
    calls, brush = (Tracer.__call__, Studio.__call__), nn.Linear(3, 3)
    pipe = Studio(brush, Tracer(brush))
    with torch.enable_grad():
        assert outputs_of(pipe, [{}, {}], Generation()).requires_grad
        with pytest.raises(UserError, match="Studio has no argument prompt"):
            outputs_of(pipe, ["a"], Generation())
    assert (Tracer.__call__, Studio.__call__) == calls
    assert not pipe.painter(1)[0].requires_grad


@pytest.mark.parametrize("own", [True, False])
def test_an_array_that_goes_on_as_a_tensor_ends_all_gradients(own: bool) -> None:
    """What misses a part of the way would be wrong."""
    brush = nn.Linear(3, 3)
    with torch.enable_grad():
        out = outputs_of(Studio(brush, Painter(brush)), [{}, {}], Generation(options={"own": own}))
    assert not out.requires_grad


def test_conditions_that_no_file_holds() -> None:
    subject = subject_of(Painter(nn.Linear(3, 3)), Generation())
    pictures = [{"image": Image.new("RGB", (4, 4), colour)} for colour in ("red", "blue")]
    labels = labels_of(pictures)
    with pytest.raises(UserError, match="Painter does not return"):
        conditions_in(subject, labels)
    assert conditions_in(holding(subject, pictures), labels) == tuple(pictures)
    assert conditions_in(subject, ("a", {"prompt": "b"})) == ("a", {"prompt": "b"})
    own = made()
    assert holding(own, [1]) is own and len(conditions_in(own, labels)) == 2


def test_tensors_given_as_conditions_are_run_on(tmp_path: Path) -> None:
    """The profile says which they were, and is that of a subject that brings them."""
    first = made()
    bare = bitplan.Subject(first.modules, first.run, output="array", name="toy")
    options: dict[str, Any] = {"schemes": ("w8a8",), "method": "exhaustive", "timesteps": 1}
    given = bitplan.profile(bare, tmp_path / "a.profile", prompts=first.conditions[:2], **options)
    brought = bitplan.profile(first, tmp_path / "b.profile", count=2, **options)
    with open_profile(given) as ours, open_profile(brought) as theirs:
        assert ours.header()["settings"]["prompts"] == theirs.header()["settings"]["prompts"]
        assert [m.mean for m in ours.measurements()] == [m.mean for m in theirs.measurements()]


class Each(nn.Module):
    """Takes a list of samples, and returns as many of each as its place says."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, samples: list[Tensor]) -> list[Tensor]:
        return [self.layer(sample)[place:] for place, sample in enumerate(samples)]


def test_lists_of_samples_of_other_shapes_are_refused_in_one_line() -> None:
    module = Each()

    def run(count: int) -> Tensor:
        found = module([torch.ones(4, 3) for _ in range(count)])
        return torch.stack([found[i].mean(0) for i in range(count)])

    steps, _ = unroll([module], lambda: run(2))
    with pytest.raises(MeasurementError, match="the rows of no tensor grow .IndexError: list index out of range"):
        rehearse(steps, 2, lambda: run(3))
    assert "forward" not in vars(module)
