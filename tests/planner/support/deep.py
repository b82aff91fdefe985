"""A user's own pipeline with far more weights than anything else, and the memory of measuring it.

`python -m tests.planner.support.deep FOLDER [OFFLOAD]` profiles it and prints, as JSON, MiB of its weights and the
peak of added anonymous memory.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

import bitplan
from bitplan.planner.measurement.methods import probes  # noqa: F401
from bitplan.planner.pipelines import traced as tracing  # noqa: F401 - what importing takes is not counted
from bitplan.planner.pipelines.subject import Subject

WIDTH, LAYERS = 1024, 112


class Deep(nn.Module):
    """Blocks of a residual network."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + torch.tanh(block(x))
        return x


def made() -> Subject:
    """Builds a sampler of two steps."""
    torch.manual_seed(0)
    deep = Deep()

    def run(conditions: Sequence[Tensor], seed: int) -> Tensor:
        x = torch.stack(list(conditions))
        for _ in range(2):
            x = x - deep(x) / 2
        return x

    return Subject({"deep": deep}, run, conditions=tuple(torch.randn(2, WIDTH)), metrics=("nsr",))


def anonymous() -> float:
    """Returns the current anonymous memory in MiB."""
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) / 1024


def main(folder: Path, offload: Path | None) -> None:
    torch.set_num_threads(1)
    before, most = anonymous(), [0.0]

    def watch() -> None:
        while True:
            most[0] = max(most[0], anonymous())
            time.sleep(0.002)

    threading.Thread(target=watch, daemon=True).start()
    bitplan.profile(
        "tests.planner.support.deep:made",
        folder / "d.profile",
        schemes=("w8a16",),
        checks=0,
        probes=1,
        offload_folder=offload,
    )
    print(json.dumps({"weights": WIDTH**2 * LAYERS * 4 / 2**20, "added": most[0] - before}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
