"""Subjects whose layers get several rows of each sample, or their rows in an order that is not that of the samples."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bitplan.planner.pipelines.subject import Subject
from tests.odd.parts import INSIDE, WIDTH, Net, made, sampled

FRAMES = 3


class Doubled(Net):
    """Guidance inside the denoiser, and a time with a row for each of these rows."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Linear(2, INSIDE)

    def forward(self, x: Tensor, time: float, known: Tensor) -> Tensor:
        times = self.time(torch.tensor([[time, 1.0]]).expand(2 * len(x), 2))
        out = super().forward(torch.cat([x, x]), 0.0, torch.cat([0 * known, known]) + times)
        return out[: len(x)] + 2 * (out[len(x) :] - out[: len(x)])


class Interleaved(Net):
    """The two rows of each sample follow each other."""

    def forward(self, x: Tensor, time: float, known: Tensor) -> Tensor:
        out = super().forward(x.repeat_interleave(2, 0), time, torch.stack([0 * known, known], 1).flatten(0, 1))
        return out[::2] + 2 * (out[1::2] - out[::2])


class Frames(Net):
    """Folds frames into the batch: `b f` with those of a sample behind each other, or `f b`."""

    def __init__(self, order: str) -> None:
        super().__init__()
        self.order = order
        self.register_buffer("frame", torch.randn(FRAMES, WIDTH))

    def forward(self, x: Tensor, time: float, known: Tensor) -> Tensor:
        video, words = x[:, None] + self.frame, known[:, None].expand(len(x), FRAMES, INSIDE)
        if self.order == "b f":
            out = super().forward(video.flatten(0, 1), time, words.flatten(0, 1)).view(len(x), FRAMES, -1)
        else:
            rows = [part.transpose(0, 1).flatten(0, 1) for part in (video, words)]
            out = super().forward(rows[0], time, rows[1]).view(FRAMES, len(x), -1).transpose(0, 1)
        return out.tanh().mean(1)


class Permuted(Net):
    """Turns the batch around, or shuffles it."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor, time: float, known: Tensor) -> Tensor:
        shuffled = torch.randperm(len(x), generator=torch.Generator().manual_seed(3))
        places = shuffled if self.how == "shuffled" else torch.arange(len(x)).flip(0)
        return super().forward(x[places], time, known[places])[places.argsort()]


class Chunked(Net):
    """Calls its layers once for each half of the batch."""

    def forward(self, x: Tensor, time: float, known: Tensor) -> Tensor:
        halves = zip(x.chunk(2), known.chunk(2), strict=True)
        return torch.cat([super(Chunked, self).forward(half, time, words) for half, words in halves])


class TokensFirst(Net):
    """The batch is the second dimension of what its layers get."""

    def forward(self, x: Tensor, time: float, known: Tensor) -> Tensor:
        return super().forward(torch.stack([x, 0.5 * x, -x, x + 1]), time, known).mean(0)


def ordered(kind: type[nn.Module], *args: str) -> Subject:
    return sampled(made(kind, *args))
