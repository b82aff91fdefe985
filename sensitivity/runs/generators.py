"""Torch's global random number generators: their states, and runs that begin at a seed and leave them as they were.

They are the generator of the CPU and those of all CUDA devices, once the process uses one. Numpy and Python's `random`
have generators of their own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

_LOCK = threading.RLock()  # the generators are the process's, so that runs of several threads wait for each other


@contextmanager
def seeded(seed: int) -> Iterator[Callable[[], bool]]:
    """Within the `with`, the generators begin at the seed; then they are as before. Gives a function that tells
    whether a random number was drawn since.
    """
    with _kept():
        for generator in (torch.default_generator, *(torch.cuda.default_generators[i] for i in _devices())):
            generator.manual_seed(seed)
        begin = states()
        yield lambda: moved(begin)


@contextmanager
def drawing_from(given: Sequence[Tensor]) -> Iterator[None]:
    """Within the `with`, the generators begin at the states that `states` gave; then they are as before."""
    with _kept():
        for device, state in enumerate(given, -1):
            torch.cuda.set_rng_state(state, device) if device >= 0 else torch.set_rng_state(state)
        yield


def states() -> tuple[Tensor, ...]:
    """The states of the generators, that of the CPU first."""
    return (torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in _devices()))


def moved(begin: Sequence[Tensor]) -> bool:
    """Whether a random number was drawn since the states were `begin`."""
    return not all(map(torch.equal, begin, states()))


@contextmanager
def _kept() -> Iterator[None]:
    with _LOCK, torch.random.fork_rng(_devices(), device_type="cuda"):
        yield


def _devices() -> range:
    """Indices of the devices with a generator; none before the first use of one."""
    return range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0)
