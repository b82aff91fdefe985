"""Layers whose rows belong to samples in an order that no repetition of the batch explains are not probed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import bitplan
from bitplan.sensitivity.table import MeasurementError
from tests.odd.ordered import Chunked, Permuted, TokensFirst, ordered


@pytest.mark.parametrize("kind", [(Permuted, "flipped"), (Permuted, "shuffled"), (Chunked,), (TokensFirst,)], ids=str)
def test_an_order_that_is_not_known_is_refused(kind: tuple[Any, ...], tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="no layer can be probed: .*measure with --method exhaustive"):
        bitplan.profile(ordered(*kind), tmp_path / "o.profile", schemes=("w4a8",), probes=4, timesteps=1, checks=0)
