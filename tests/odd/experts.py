"""Subjects whose conditions do not all run the same layers: experts, early exits, layers that are skipped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from bitplan.planner.pipelines.subject import Subject
from tests.odd.parts import INSIDE, WIDTH, Odd, made, sampled

Route = Callable[[Tensor, float, Tensor], Tensor]  # (h, time, known) -> the expert of each row; -1 for none


class Mixture(nn.Module):
    """Two linear layers, and experts between them that add to what their own rows hold.

    The first number of a row of `known` chooses its expert.
    """

    def __init__(self, experts: int = 2, empty: bool = False, rounds: bool = False) -> None:
        """empty: whether experts are also called on no row; rounds: whether a row goes through its expert as many times
        as the second number of `known` says."""
        super().__init__()
        self.first, self.last = nn.Linear(WIDTH, INSIDE), nn.Linear(INSIDE, WIDTH)
        self.experts = nn.ModuleList(nn.Linear(INSIDE, INSIDE) for _ in range(experts))
        self.empty, self.rounds = empty, rounds
        self.route: Route = lambda h, time, known: known[:, 0].round().long()

    def forward(self, x: Tensor, time: float, known: Tensor) -> Tensor:
        h = torch.tanh(self.first(x) + known + time)
        chosen = self.route(h, time, known)
        for times in range(int(known[:, 1].max()) if self.rounds else 1):
            for number, expert in enumerate(self.experts):
                rows = chosen == number
                if self.rounds:
                    rows = rows & (known[:, 1] > times)
                if self.empty or rows.any():
                    own = h.clone()
                    own[rows] = h[rows] + torch.tanh(expert(h[rows]))
                    h = own
        return self.last(h)


def told(*experts: int, rounds: Sequence[int] = ()) -> list[Tensor]:
    """Conditions with these experts, and these numbers of rounds."""
    given = torch.randn(len(experts), INSIDE, generator=torch.Generator().manual_seed(1))
    given[:, 0] = torch.tensor(experts).float()
    if rounds:
        given[:, 1] = torch.tensor(rounds).float()
    return list(given)


def chosen(*experts: int, empty: bool = False) -> Callable[[], Subject]:
    """A subject whose conditions choose these experts."""
    return lambda: replace(sampled(made(Mixture, max(2, max(experts) + 1), empty)), conditions=told(*experts))


def in_turn() -> Subject:
    """A call for each sample, the last of which has an expert of its own."""
    net = made(Mixture)

    def denoise(x: Tensor, time: float, known: Tensor) -> Tensor:
        return torch.cat([net(row[None], time, one[None]) for row, one in zip(x, known, strict=True)])

    return replace(sampled(net, denoise), conditions=told(0, 0, 0, 0, 0, 1))


def by_time() -> Subject:
    """The expert of the early steps is another one than that of the late steps."""
    net = made(Mixture)
    net.route = lambda h, time, known: torch.full((len(h),), int(time >= 0.5))
    return sampled(net)


def at_random() -> Subject:
    """An expert is skipped at random; the noise of the condition, from its seed, decides."""
    net = made(Mixture)
    net.route = lambda h, time, known: known[:, 2].gt(0.5).long() - 1
    return replace(sampled(net), conditions=told(0, 0, 0, 0, 0, 0))


def exits_early() -> Subject:
    return replace(sampled(made(Mixture, 2, False, True)), conditions=told(0, 1, 0, 1, 0, 0, rounds=(1, 2, 3, 1, 0, 2)))


class Two(nn.Module):
    """The denoisers of `two_denoisers`."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = Mixture(1), Mixture(1)


def two_denoisers() -> Subject:
    """The last condition has a denoiser of its own."""
    both = made(Two)

    def denoise(x: Tensor, time: float, known: Tensor) -> Tensor:
        nets = (both.one, both.other)
        pairs = zip(x, known, strict=True)
        return torch.cat([nets[int(one[0])](row[None], time, 0 * one[None]) for row, one in pairs])

    subject = sampled(both, denoise)
    return replace(subject, modules={"one": both.one, "other": both.other}, conditions=told(0, 0, 0, 0, 1))


ONE = 0.6  # error of a layer that one sample runs: three standard deviations of a mean of 48 squares

EXPERTS = (
    Odd("an expert that no prompt of the first round reaches", chosen(0, 0, 0, 0, 1, 0), error=ONE),
    Odd("an expert of the first round alone", chosen(0, 1, 0, 0, 0, 0), error=ONE),
    Odd("an expert that the first condition does not reach", chosen(1, 0, 0, 1)),
    Odd("an expert of the first condition alone", chosen(1, 0, 0, 0, 0), error=ONE),
    Odd("experts that are called on no row", chosen(0, 0, 0, 0, 1, 0, empty=True), error=ONE),
    Odd("experts for each sample of a batch", chosen(0, 1, 0, 1, 1, 0, 2, 0), error=ONE),
    Odd("an expert, by exhaustive runs", chosen(0, 0, 0, 0, 1, 0), error=1e-3, method="exhaustive"),
    Odd("an expert, and a call for each sample", in_turn, error=ONE),
    Odd("experts of early and late steps", by_time),
    Odd("a layer that is skipped at random", at_random),
    Odd("early exits", exits_early, error=ONE),
    Odd("a denoiser of the last condition alone", two_denoisers, error=ONE),
    Odd("one prompt of 32", chosen(*(int(i == 20) for i in range(32))), error=ONE, count=32),
)
