"""What a measurement would refuse late, or get wrong in silence, is refused before any cost is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bitplan
from bitplan.planner.errors import UserError
from bitplan.planner.pipelines.subject import Subject
from bitplan.planner.profiles.profile import open_profile
from bitplan.sensitivity.metrics import METRICS
from bitplan.sensitivity.metrics.base import Metric
from bitplan.sensitivity.table import MeasurementError
from tests.planner.measurement.odd_subjects import odd

OPTIONS: dict[str, Any] = {"schemes": ("w4a8",), "count": 2, "checks": 0, "timesteps": 1, "probes": 2}


@pytest.fixture
def no_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    late = lambda *_: pytest.fail("costs were measured first")  # noqa: E731
    monkeypatch.setattr("bitplan.planner.measurement.run.cost_candidates", late)


def painter(side: int, scale: float = 1.0) -> Subject:
    """Two steps of a net on 4 numbers, and pictures of `side` px."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4))

    def run(conditions: Sequence[Any], seed: int) -> Tensor:
        noise = [torch.randn(4, generator=torch.Generator().manual_seed(seed + i)) for i in range(len(conditions))]
        x = torch.stack(noise)
        for _ in range(2):
            x = x + 0.5 * net(x)
        return scale * torch.sigmoid(x[:, :3, None, None] * torch.linspace(0, 1, side * side).view(side, side))

    return Subject({"net": net}, run, [1, 2, 3], "images", name="painter")


def test_a_default_metric_that_cannot_read_the_pictures_is_left_out(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with open_profile(bitplan.profile(painter(8), tmp_path / "p.profile", **OPTIONS)) as store:
        assert {m.metric for m in store.measurements()} == {"nsr"}
    assert "dssim left out: SSIM needs images of 11x11 px or more, got 8x8" in capfd.readouterr().err


@pytest.mark.usefixtures("no_costs")
@pytest.mark.parametrize("asked", ["by name", "by the subject"])
def test_one_that_was_asked_for_is_refused(asked: str, tmp_path: Path) -> None:
    subject = replace(painter(8), metrics=("dssim",)) if asked == "by the subject" else painter(8)
    with pytest.raises(UserError, match="the metric dssim cannot be measured: SSIM needs images of 11x11 .* got 8x8"):
        bitplan.profile(subject, tmp_path / "p", metrics=("dssim",) if asked == "by name" else (), **OPTIONS)


@pytest.mark.usefixtures("no_costs")
@pytest.mark.parametrize("scale", [float("nan"), 40.0])
def test_outputs_that_are_no_pictures_are_refused(scale: float, tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match=r"not finite|span .*; hand in pixels in 0..1"):
        bitplan.profile(painter(16, scale), tmp_path / "p.profile", **OPTIONS)


@pytest.mark.usefixtures("no_costs")
@pytest.mark.parametrize("outside", [False, True])
def test_a_subject_without_gradients_is_refused(outside: bool, tmp_path: Path) -> None:
    """Also where its output requires gradients, those of a decoder that is not among its modules."""
    subject, decoder = odd("plain"), nn.Linear(8, 8)

    def run(conditions: Sequence[Any], seed: int) -> Tensor:
        output = subject.run(conditions, seed).detach()
        return decoder(output) if outside else output

    with pytest.raises(UserError, match="no gradients flow through Subject .*--method exhaustive"):
        bitplan.profile(replace(subject, run=run), tmp_path / "p.profile", **OPTIONS)


@pytest.mark.usefixtures("no_costs")
@pytest.mark.parametrize("method", ["probes", "exhaustive"])
def test_a_module_that_draws_as_in_training_is_refused_and_named(method: str, tmp_path: Path) -> None:
    """Though its runs are equal, since torch's generators begin at the seed."""
    subject = odd("plain")
    denoiser = subject.modules["denoiser"]
    denoiser.last = nn.Sequential(nn.Dropout(0.5), denoiser.last).train()
    with pytest.raises(UserError, match=r"denoiser\.last\.0 draws random numbers as in training; call eval\(\) on "):
        bitplan.profile(subject, tmp_path / "p.profile", method=method, **OPTIONS)


@pytest.mark.usefixtures("no_costs")
def test_an_unseeded_draw_of_the_run_is_named(tmp_path: Path) -> None:
    """One of numpy's: torch's generators begin at the seed."""
    subject = odd("plain")
    run = lambda conditions, seed: subject.run([c + np.random.rand() for c in conditions], seed)  # noqa: E731, NPY002
    with pytest.raises(UserError, match=r"of odd give different outputs: denoiser gets different inputs"):
        bitplan.profile(replace(subject, run=run), tmp_path / "p.profile", **OPTIONS)


class Keeping(nn.Module):
    """Keeps what it computes where gradients flow, as attention that is optimized at the run does."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.kept = nn.Linear(4, 4), dict[str, Tensor]()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        if y.requires_grad:
            self.kept["y"] = y
        return y


def test_a_run_that_needs_gradients_of_its_own_modules_is_measured_exhaustively(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(Keeping(), nn.Linear(4, 4))

    def run(conditions: Sequence[float], seed: int) -> Tensor:
        x = torch.tensor(conditions)[:, None].expand(-1, 4).clone()
        for _ in range(2):
            net[0].kept.clear()
            with torch.enable_grad():
                net[0](x.requires_grad_())
                x = (x - torch.autograd.grad(net[0].kept["y"].square().sum(), x)[0]).detach()
        return x + net(x)

    subject = Subject({"net": net}, run, [1.0, 2.0], "array", name="steered")
    with pytest.raises(
        UserError, match="without a graph, with which its run fails: KeyError: 'y'; measure with --meth"
    ):
        bitplan.profile(subject, tmp_path / "p.profile", **OPTIONS)
    with open_profile(
        bitplan.profile(subject, tmp_path / "e.profile", method="exhaustive", schemes=("w4a8",), timesteps=1)
    ) as store:
        assert {m.source for m in store.measurements()} == {"exhaustive"}


@pytest.mark.usefixtures("no_costs")
def test_an_iterator_among_the_arguments_is_refused(tmp_path: Path) -> None:
    subject = odd("plain")
    forward = type(subject.modules["denoiser"]).forward

    class Reading(type(subject.modules["denoiser"])):  # type: ignore[misc]
        def forward(self, x: Tensor, time: float, known: Any) -> Any:
            return forward(self, x, time, next(known))

    denoiser = Reading("plain")

    def run(conditions: Sequence[Tensor], seed: int) -> Tensor:
        x = torch.stack([c.repeat(2)[:6] for c in conditions])
        for i in range(2):
            x = x - 0.3 * denoiser(x, i / 2, iter([torch.ones(len(x), 16)]))
        return x

    for method in ("probes", "exhaustive"):
        with pytest.raises(MeasurementError, match="a module gets a list_iterator, which a call uses up"):
            bitplan.profile(
                Subject({"denoiser": denoiser}, run, subject.conditions, "array"), tmp_path / f"{method}.profile",
                method=method, **OPTIONS,
            )  # fmt: skip


def test_the_reason_for_no_probe_is_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def far(full: Tensor, variant: Tensor) -> Tensor:
        return (full - variant).abs().flatten(1).mean(1).double()

    subject = replace(odd("plain"), metrics=("nsr", Metric("far", "own", "output", "a distance", far)))
    bitplan.profile(subject, tmp_path / "p.profile", **OPTIONS)
    assert "far has no probe: far grows like small changes to the power 1, not 2; measure it with --method" in (
        capfd.readouterr().err
    )
    assert "far" not in METRICS
