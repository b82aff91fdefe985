"""Subjects that run their denoiser in odd ways, one a row of `SUBJECTS`.

To add a kind: a function that builds its subject from `tests.odd.parts`, here or in a file of its own, and a row below.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bitplan.planner.pipelines.subject import Subject
from tests.odd.experts import EXPERTS
from tests.odd.ordered import Doubled, Frames, Interleaved, Permuted, ordered
from tests.odd.outside import OUTSIDE, outside
from tests.odd.parts import EXACT, Net, Odd, made, sampled
from tests.odd.patched import PATCHED
from tests.odd.writers import WRITES, by_denoiser, by_sampler


def plain() -> Subject:
    return sampled(made(Net))


class Writing(Net):
    def forward(self, x: Tensor, time: float, known: Tensor) -> Tensor:
        x *= 0.5
        return super().forward(x, time, known)


def writing() -> Subject:
    """The denoiser writes into its input, so the sampler goes on with what it wrote."""
    return sampled(made(Writing))


def training() -> Subject:
    """Dropout in train mode, so that two equal runs differ."""
    net = made(Net)
    net.middle = nn.Sequential(nn.Dropout(0.5), net.middle).train()
    return sampled(net)


def unseeded() -> Subject:
    """The sampler draws noise of numpy's without a seed."""
    net, noise = made(Net), np.random.default_rng()
    return sampled(net, lambda x, time, known: net(x + torch.tensor(noise.normal(size=x.shape)).float(), time, known))


def in_turn() -> Subject:
    """A call of the denoiser for each sample."""
    net = made(Net)
    return sampled(
        net,
        lambda x, time, known: torch.cat([net(row[None], time, one[None]) for row, one in zip(x, known, strict=True)]),
    )


class Changing(Net):
    """Differs from run to run: for one condition alone, by less than a scheme does, or more with each call."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.noise, self.calls = how, np.random.default_rng(), 0

    def forward(self, x: Tensor, time: float, known: Tensor) -> Tensor:
        self.calls += 1
        noise = torch.tensor(self.noise.normal(size=x.shape)).float()
        more = {"late": 0.1 * noise * (known[:, :1] > 0.6), "small": 3e-4 * noise, "counter": 0.01 * self.calls * x}
        return super().forward(x + more[self.how], time, known)


def changing(how: str) -> Subject:
    return sampled(made(Changing, how))


class Checkpointed(Net):
    def forward(self, x: Tensor, time: float, known: Tensor) -> Tensor:
        return checkpoint(super().forward, x, time, known, use_reentrant=False)  # type: ignore[no-any-return]


def checkpointed() -> Subject:
    """The denoiser computes its activations again for gradients."""
    return sampled(made(Checkpointed))


def detached() -> Subject:
    """The run ends in a tensor without gradients."""
    subject = sampled(made(Net))
    return replace(subject, run=lambda conditions, seed: subject.run(conditions, seed).detach())


UNSEEN = "where torch does not see it, such as through"
WRITERS = (
    *(Odd(f"writes by {how} into a dictionary, exhaustive", partial(by_denoiser, how, "dict"), error=EXACT,
          method="exhaustive") for how in WRITES),
    Odd("writes by [...] into its input", partial(by_denoiser, "[...]", "x")),
    Odd("writes by mul_ into a dictionary", partial(by_denoiser, "mul_", "dict")),
    Odd("writes by numpy into a dictionary", partial(by_denoiser, "numpy", "dict"), UNSEEN),
    Odd("the sampler writes by mul_", partial(by_sampler, "mul_")),
    Odd("the sampler writes by numpy", partial(by_sampler, "numpy"), UNSEEN),
    Odd("the sampler writes by .data", partial(by_sampler, ".data"), UNSEEN),
)  # fmt: skip

ORDERED = (
    *(Odd(f"outside the denoiser, {how}", partial(outside, how)) for how in OUTSIDE),
    *(
        Odd(f"outside the denoiser, {how}, exhaustive", partial(outside, how), error=EXACT, method="exhaustive")
        for how in OUTSIDE
    ),
    Odd("guidance inside the denoiser", partial(ordered, Doubled)),
    Odd("guidance inside, interleaved", partial(ordered, Interleaved)),
    Odd("frames as (b f)", partial(ordered, Frames, "b f")),
    Odd("frames as (f b)", partial(ordered, Frames, "f b")),
    Odd("frames as (f b), exhaustive", partial(ordered, Frames, "f b"), error=EXACT, method="exhaustive"),
    Odd("the batch shuffled, exhaustive", partial(ordered, Permuted, "shuffled"), error=EXACT, method="exhaustive"),
)
DIFFER = "two equal runs of odd give different outputs: net.first gets different inputs"
CHANGING = (
    Odd("a draw of numpy's for one condition", partial(changing, "late"), DIFFER),
    Odd("a draw of numpy's for one condition, exhaustive", partial(changing, "late"), DIFFER, method="exhaustive"),
    Odd("a small draw of numpy's", partial(changing, "small"), DIFFER),
    Odd("a state that is kept from call to call", partial(changing, "counter"), DIFFER),
)

SUBJECTS = (
    Odd("plain", plain),
    Odd("plain, exhaustive", plain, error=EXACT, method="exhaustive"),
    Odd("writes into its input", writing),
    Odd("writes into its input, exhaustive", writing, error=EXACT, method="exhaustive"),
    Odd("dropout in train mode", training, "net.middle.0 draws random numbers as in training; call eval()"),
    Odd("an unseeded draw", unseeded, "net gets different inputs"),
    Odd("a call for each sample", in_turn),
    Odd("checkpointed", checkpointed),
    Odd("without gradients", detached, "no gradients flow through Subject to its outputs; measure with --method"),
    Odd("without gradients, exhaustive", detached, error=EXACT, method="exhaustive"),
    *EXPERTS,
    *WRITERS,
    *PATCHED,
    *CHANGING,
    *ORDERED,
)
