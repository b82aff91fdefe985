"""Small subjects that call their denoiser in ways that a repetition of the call, or copies of a batch in it, must
withstand. Each is a sampler of three steps on vectors; what is odd about it is a function of this file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bitplan.planner.pipelines.subject import Subject

STEPS = 3
Call = Callable[[nn.Module, Tensor, float, Tensor], Tensor]  # (denoiser, x, time, known) -> its output


class Denoiser(nn.Module):
    """Two layers; reads `known` in the form of `how`."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.first, self.last, self.how = nn.Linear(6, 16), nn.Linear(16, 6), how

    def forward(self, x: Tensor, time: Any, known: Any) -> Any:
        if self.how == "consumed":
            known = sum(known.pop(0) for _ in range(len(known)))
        elif self.how == "consumed by key":
            known = known.pop("known")
        elif self.how == "dataclass":
            known = known.known * known.scale
        elif self.how == "named tuple":
            known = known[0]
        elif self.how == "written":
            x *= 0.5
        out = self.last(torch.tanh(self.first(x) + known + time))
        if self.how == "perturbed":
            plain, perturbed = out.chunk(2)
            out = torch.cat([plain, perturbed.abs()])
        return (out, {"more": "text"}) if self.how == "mixed output" else out


@dataclass(frozen=True)
class Known:
    known: Tensor
    scale: float = 1.0


class Pair(NamedTuple):
    known: Tensor
    text: str


def _perturbed(denoiser: nn.Module, x: Tensor, time: float, known: Tensor) -> Tensor:
    """The denoiser computes the first and the second half of its rows in different ways."""
    plain, perturbed = denoiser(torch.cat([x, x]), time, torch.cat([known, known])).chunk(2)
    return plain + 0.5 * (plain - perturbed)


def _in_turn(denoiser: nn.Module, x: Tensor, time: float, known: Tensor) -> Tensor:
    """A call for each sample."""
    return torch.cat([denoiser(x[i : i + 1], time, known[i : i + 1]) for i in range(len(x))])


CALLS: dict[str, Call] = {
    "plain": lambda denoiser, x, time, known: denoiser(x, time, known),
    "consumed": lambda denoiser, x, time, known: denoiser(x, time, known=[known / 2, known / 2]),
    "consumed by key": lambda denoiser, x, time, known: denoiser(x, time, {"known": known}),
    "dataclass": lambda denoiser, x, time, known: denoiser(x, time, Known(known)),
    "named tuple": lambda denoiser, x, time, known: denoiser(x, time, Pair(known, "text")),
    "written": lambda denoiser, x, time, known: denoiser(x, time, known),
    "perturbed": _perturbed,
    "in turn": _in_turn,
    "mixed output": lambda denoiser, x, time, known: denoiser(x, time, known)[0],
}


def odd(how: str, conditions: int = 4, one_at_a_time: bool = False, parameters: bool = False) -> Subject:
    """A subject whose denoiser is called in an odd way.

    Args:
        how: a key of `CALLS`.
        conditions: the number of conditions.
        one_at_a_time: whether its run refuses several conditions.
        parameters: whether its encoder is not among its modules and its run makes parameters.
    """
    torch.manual_seed(0)
    denoiser, encoder, decoder = Denoiser(how), nn.Linear(5, 16), nn.Linear(6, 8)

    def run(conditions: Sequence[Tensor], seed: int) -> Tensor:
        if one_at_a_time and len(conditions) > 1:
            raise ValueError("one condition at a time")
        known = encoder(torch.stack(list(conditions)))
        known = known * nn.Parameter(torch.ones(16)) if parameters else known.detach()
        noise = [torch.randn(6, generator=torch.Generator().manual_seed(seed + i)) for i in range(len(conditions))]
        x = torch.stack(noise)
        for i in range(STEPS):
            out = CALLS[how](denoiser, x, i / STEPS, known)
            x = x - 0.3 * out
        return torch.nn.functional.linear(x, decoder.weight.detach(), decoder.bias.detach())

    given = list(torch.randn(conditions, 5, generator=torch.Generator().manual_seed(1)))
    return Subject({"denoiser": denoiser}, run, given, "array", name="odd")
