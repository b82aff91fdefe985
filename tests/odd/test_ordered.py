"""Layers are not probed whose rows belong to samples in an order that no repetition of the batch explains, or to
several samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import bitplan
from bitplan.planner.pipelines.subject import Subject
from bitplan.sensitivity.table import MeasurementError
from tests.odd.ordered import Chunked, Permuted, TokensFirst, ordered
from tests.odd.outside import centred


@pytest.mark.parametrize("kind", [(Permuted, "flipped"), (Permuted, "shuffled"), (Chunked,), (TokensFirst,)], ids=str)
def test_an_order_that_is_not_known_is_refused(kind: tuple[Any, ...], tmp_path: Path) -> None:
    _check_refused(ordered(*kind), tmp_path)


def test_rows_that_act_on_several_samples_are_refused(tmp_path: Path) -> None:
    _check_refused(centred(), tmp_path)


def _check_refused(subject: Subject, tmp_path: Path) -> None:
    cause = "no gradient of the output reaches a layer of which each row acts on one prompt alone"
    with pytest.raises(MeasurementError, match=f"no layer can be probed: {cause}; measure with --method exhaustive"):
        bitplan.profile(subject, tmp_path / "o.profile", schemes=("w4a8",), probes=4, timesteps=1, checks=0)
