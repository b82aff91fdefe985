"""What odd subjects are made of: a row, a net and a sampler, so small that a run takes milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bitplan.planner.pipelines.subject import Subject

WIDTH, INSIDE, STEPS, CONDITIONS = 8, 12, 2, 4
EXACT = 1e-3  # error of an exhaustive measurement
Denoise = Callable[[Tensor, float, Tensor], Tensor]  # (x, time, known) -> what the sampler subtracts


@dataclass(frozen=True)
class Odd:
    """One row.

    Attributes:
        name: what is odd, in a few words.
        build: makes the subject anew.
        refused: a part of the refusal; empty where the subject is taken.
        error: the largest relative error of a loss, of which 0.25 is the noise of 48 probes.
        method: how losses are measured.
        count: the number of conditions at most.
    """

    name: str
    build: Callable[[], Subject]
    refused: str = ""
    error: float = 0.3
    method: str = "probes"
    count: int = 8


class Net(nn.Module):
    """Three linear layers on rows of x, with the time and what is known of a condition added in between."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle = nn.Linear(WIDTH, INSIDE), nn.Linear(INSIDE, INSIDE)
        self.last = nn.Linear(INSIDE, WIDTH)

    def forward(self, x: Tensor, time: float, known: Tensor) -> Tensor:
        h = torch.tanh(self.first(x) + known + time)
        return self.last(h + torch.tanh(self.middle(h)))


def sampled(
    net: nn.Module, denoise: Denoise | None = None, dtype: torch.dtype = torch.float32, **fields: Any
) -> Subject:
    """A subject that takes `STEPS` steps with a net; a condition is a vector.

    denoise: how the net is called; as it is by default. fields: of the `Subject`.
    """
    call = net if denoise is None else denoise

    def run(conditions: Sequence[Tensor], seed: int) -> Tensor:
        known = torch.stack(list(conditions))
        noise = [torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed + i)) for i in range(len(known))]
        x = torch.stack(noise).to(dtype)
        for i in range(STEPS):
            x = x - 0.3 * call(x, i / STEPS, known)
        return x

    given = list(torch.randn(CONDITIONS, INSIDE, generator=torch.Generator().manual_seed(1)).to(dtype))
    return Subject({"net": net}, run, given, "array", **{"name": "odd", **fields})


def made(kind: type[nn.Module], *args: Any) -> Any:
    """A net with the same random weights every time."""
    torch.manual_seed(0)
    return kind(*args).eval()
