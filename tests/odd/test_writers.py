"""What a denoiser or a sampler writes is in no other replay: the losses of a denoiser's own output are those of calls
that are repeated on what the sampler gave."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import bitplan
from bitplan.planner.pipelines.subject import Subject
from bitplan.planner.profiles.profile import open_profile
from tests.odd import truth
from tests.odd.test_odd import OPTIONS
from tests.odd.writers import WRITES, by_denoiser, by_sampler

WRITERS: dict[str, Callable[[], Subject]] = {
    **{f"denoiser, {how}, {where}": partial(by_denoiser, how, where) for how in WRITES for where in ("x", "dict")},
    **{f"denoiser, {how}, layer": partial(by_denoiser, how, "layer") for how in ("mul_", ".data", "numpy")},
    **{f"sampler, {how}": partial(by_sampler, how) for how in WRITES},
}


@pytest.mark.parametrize("name", WRITERS)
def test_exhaustive_losses_of_the_denoisers_output(name: str, tmp_path: Path) -> None:
    profile = bitplan.profile(WRITERS[name](), tmp_path / "w.profile", method="exhaustive", **OPTIONS)
    with open_profile(profile) as store:
        found = {(m.layer, m.scheme): m.mean for m in store.measurements() if m.metric == "nsr"}
    assert len(found) == 6 and found == pytest.approx(truth.denoised_losses(WRITERS[name], found), rel=1e-3)
