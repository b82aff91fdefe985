"""A name that is no loss of the profile is refused with what to write instead, and no far name is suggested."""

from __future__ import annotations

from pathlib import Path

import pytest

import bitplan
from bitplan.planner.errors import UserError

SAID = {
    "speed": "limit it by --latency 80%, or plan for it by --objective ms=1",
    "latency": "limit it by --latency 80%, or plan for it by --objective ms=1",
    "memory": "limit it by --memory 35%, or plan for it by --objective bytes=1",
    "bits": "limit it by --bits 4.5, or plan for it by --objective bytes=1",
    "lpips": "lpips was not measured in this profile; profile with --metric lpips into another --out",
    "frechet": "about whole sets of outputs, not layers; measure it by `bitplan evaluate --metric frechet`",
    "qualty": "no loss is named 'qualty'; did you mean 'quality'?",
    "xyzzy": "no loss is named 'xyzzy'; there are bytes, ms, ",
}


@pytest.mark.parametrize("name", SAID)
def test_the_message_says_what_to_write(name: str, finished: Path, tmp_path: Path) -> None:
    for words in ({"objective": f"{name}=1"}, {"objective": f"lexicographic:{name},quality"}, {"caps": {name: "1"}}):
        with pytest.raises(UserError) as told:
            bitplan.solve(finished, tmp_path / "p.yaml", **words)
        assert SAID[name] in str(told.value)
        assert name == "qualty" or "did you mean" not in str(told.value)


@pytest.mark.parametrize("objective", ["ms=1", "bytes=1"])
def test_what_is_advised_works(objective: str, finished: Path, tmp_path: Path) -> None:
    bitplan.solve(finished, tmp_path / "p.yaml", objective=objective)
