"""A metric that is registered from outside is measured, solved for and shown like those of the table."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import bitplan
from bitplan.planner.profiles.profile import open_profile
from bitplan.planner.verbs.look import doctor
from bitplan.planner.verbs.measure import profile
from bitplan.sensitivity.metrics import METRICS, Metric, default_metrics, metric_named
from tests import tiny


def contrast_loss(full: torch.Tensor, variant: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of the pixels from the mean of their image."""
    centred = [x.double().flatten(1) - x.double().flatten(1).mean(1, keepdim=True) for x in (full, variant)]
    return (centred[1] - centred[0]).square().mean(1)


TOY = Metric("toy_contrast", "quality", "output", "mean squared difference of contrast", contrast_loss,
             outputs=("images",), default=("images",))  # fmt: skip


@pytest.fixture
def toy() -> Iterator[Metric]:
    """The toy metric while it is in the table."""
    yield METRICS.register(TOY)
    METRICS.unregister(TOY.name)


def test_a_registered_metric_goes_through_profile_and_solve(
    toy: Metric, tiny_folder: Path, clip_folder: Path, tmp_path: Path
) -> None:
    settings = tiny.SETTINGS | {"schemes": ("w8a8", "w2ma8")}
    out = profile(str(tiny_folder), tmp_path / "toy.profile", clip=str(clip_folder), checks=2, **settings)
    with open_profile(out) as store:
        assert store.families()[toy.name] == "quality"
        measured = [m for m in store.measurements() if m.metric == toy.name]
        pairs = {(layer, scheme) for layer, scheme in ((c.layer, c.scheme) for c in store.costs()) if scheme != "keep"}
    assert {(m.layer, m.scheme) for m in measured} == pairs
    assert {"probes"} < {m.source for m in measured} <= {"probes", "corrected", "exhaustive"}  # it has got a probe
    assert all(math.isfinite(m.mean) for m in measured) and any(m.mean > 0 for m in measured)
    plan = bitplan.solve(out, tmp_path / "plan.yaml", memory="30%", objective=f"{toy.name}=1")
    chosen = {(layer, str(scheme)) for layer, scheme in plan.schemes.items()}
    total = sum(max(m.mean, 0) for m in measured if (m.layer, m.scheme) in chosen)
    assert plan.predictions["total"][toy.name] == pytest.approx(total)
    assert toy.name in str(doctor())


def test_the_table_registers_a_name_once(toy: Metric) -> None:
    assert metric_named(toy.name) is toy and toy in default_metrics("images", texts=False, encoder=False)
    with pytest.raises(ValueError, match="'nsr' exists already"):
        METRICS.register(METRICS["nsr"])
    with pytest.raises(KeyError):
        METRICS.unregister("nothing")
    assert list(METRICS)[-1] == toy.name


def test_names_of_metrics_are_read_without_torch() -> None:
    code = "import sys; from bitplan.sensitivity.metrics import METRICS as m; print('torch' in sys.modules, *m)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.split() == ["False", *METRICS]
