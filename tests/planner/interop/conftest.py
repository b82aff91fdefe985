"""The layers of a tiny model, which the exports name."""

from __future__ import annotations

import pytest

from bitplan.planner.interop.model import Model
from tests.planner.support.exporting import tiny_model


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model()
