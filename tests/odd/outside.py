"""Subjects whose sampler calls its denoiser with several rows of each sample, in various orders."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from bitplan.planner.pipelines.subject import Subject
from tests.odd.parts import WIDTH, Denoise, Net, made, sampled

FRAMES = 3
SCALES = torch.randn(FRAMES, 1, WIDTH, generator=torch.Generator().manual_seed(2))
Call = Callable[[Denoise, Tensor, float, Tensor], Tensor]  # (net, x, time, known) -> what the sampler subtracts


def _combined(without: Tensor, with_it: Tensor) -> Tensor:
    return without + 2 * (with_it - without)


def _stacked(net: Denoise, x: Tensor, time: float, known: Tensor) -> Tensor:
    """Guidance by one call for twice as many rows, as pipelines make it."""
    return _combined(*net(torch.cat([x, x]), time, torch.cat([0 * known, known])).chunk(2))


def _interleaved(net: Denoise, x: Tensor, time: float, known: Tensor) -> Tensor:
    """The two rows of each sample follow each other."""
    out = net(x.repeat_interleave(2, 0), time, torch.stack([0 * known, known], 1).flatten(0, 1))
    return _combined(out[::2], out[1::2])


def _frames(net: Denoise, x: Tensor, time: float, known: Tensor) -> Tensor:
    """The frames of each sample follow each other, with guidance stacked around them."""
    video, words = (x[:, None] * SCALES[:, 0].to(x)).flatten(0, 1), known.repeat_interleave(FRAMES, 0)
    out = net(torch.cat([video, video]), time, torch.cat([0 * words, words]))
    return _combined(*out.view(2, len(x), FRAMES, WIDTH).tanh().mean(2))


def _frames_first(net: Denoise, x: Tensor, time: float, known: Tensor) -> Tensor:
    """The samples of each frame follow each other, with guidance next to them."""
    video, words = (x * SCALES.to(x)).repeat_interleave(2, 1).flatten(0, 1), torch.stack([0 * known, known], 1)
    out = net(video, time, words.flatten(0, 1).repeat(FRAMES, 1)).view(FRAMES, len(x), 2, WIDTH).tanh().mean(0)
    return _combined(out[:, 0], out[:, 1])


def _flipped(net: Denoise, x: Tensor, time: float, known: Tensor) -> Tensor:
    """The last sample comes first, in every other step."""
    order = slice(None) if time else torch.arange(len(x)).flip(0)
    return net(x[order], time, known[order])[order]


def _unused(net: Denoise, x: Tensor, time: float, known: Tensor) -> Tensor:
    """Of the two rows of each sample the first has no effect."""
    return net(x.repeat_interleave(2, 0), time, known.repeat_interleave(2, 0))[1::2]


OUTSIDE: Mapping[str, Call] = {
    "stacked": _stacked,
    "interleaved": _interleaved,
    "frames as (b f)": _frames,
    "frames as (f b)": _frames_first,
    "flipped in one step": _flipped,
    "a row without effect": _unused,
}


def outside(how: str) -> Subject:
    """A subject whose sampler calls its denoiser in the way of a row of `OUTSIDE`."""
    net: nn.Module = made(Net)
    return sampled(net, lambda x, time, known: OUTSIDE[how](net, x, time, known))


def centred() -> Subject:
    """The sampler subtracts the mean over the batch, so that each row acts on all samples."""
    net: nn.Module = made(Net)

    def denoise(x: Tensor, time: float, known: Tensor) -> Tensor:
        out: Tensor = net(x, time, known)
        return out - out.mean(0)

    return sampled(net, denoise)
