"""The process of a command answers Ctrl-C, SIGTERM and SIGHUP within seconds, wherever it is, and leaves no process.

A signal raises an interrupt in the main thread, which undoes what it has begun. Python delivers it between two of its
own instructions only: one call into C, such as a backward pass, may delay it for minutes. So a thread that the
interpreter wakes at once waits for `PATIENCE` seconds, then tells the user what was kept, and ends the process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

import click

from bitplan.planner.interrupts import Kept, Terminated, recorded, told_of

PATIENCE = 1.5  # seconds to undo what was begun
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_USUAL = (signal.SIG_DFL, signal.default_int_handler)  # others are the choice of whoever started the process


def interrupt_of(number: int) -> KeyboardInterrupt:
    """The interrupt that stands for a signal."""
    return KeyboardInterrupt() if number == signal.SIGINT else Terminated(number)


@contextlib.contextmanager
def answering(end: Callable[[int], object]) -> Iterator[None]:
    """Within the `with`, in the main thread, each of SIGNALS that is not ignored raises an interrupt, the first time.

    end: called with the exit code, in another thread, if the process still runs `PATIENCE` seconds after the signal.
    """
    numbers = [number for number in SIGNALS if signal.getsignal(number) in _USUAL]
    came = threading.Event()

    def answer(number: int, frame: FrameType | None) -> None:
        if not came.is_set():  # another one would interrupt what the first one undoes
            came.set()
            raise interrupt_of(number)

    reader, writer = socket.socketpair()
    writer.setblocking(False)
    with reader, recorded() as kept:
        before = {number: signal.signal(number, answer) for number in numbers}
        woken = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        watching = threading.Thread(target=_watch, args=(reader, frozenset(numbers), kept, end), daemon=True)
        watching.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(woken)
            for number, handler in before.items():
                signal.signal(number, handler)
            writer.close()
            watching.join()


def _watch(reader: socket.socket, numbers: frozenset[int], kept: Kept, end: Callable[[int], object]) -> None:
    """Wait for a signal, whose number arrives as a byte, and end the process unless the socket is closed in time."""
    while (byte := reader.recv(1)) and byte[0] not in numbers:
        pass
    if not byte or _closed_within(reader, PATIENCE):
        return
    end(tell_interrupt(interrupt_of(byte[0]), kept))


def _closed_within(reader: socket.socket, seconds: float) -> bool:
    """Whether the other end is closed within the time."""
    until = time.monotonic() + seconds
    with contextlib.suppress(TimeoutError):
        while (left := until - time.monotonic()) > 0:
            reader.settimeout(left)
            if not reader.recv(64):
                return True
    return False


def tell_interrupt(error: BaseException, kept: Kept) -> int:
    """Print what was kept, unless it was printed before, and return the exit code that a shell states."""
    says, code = told_of(error)
    if not kept.told:
        kept.told = True
        tell(f"{says}; {kept}")
    return code


def tell(sentence: str) -> None:
    """Print one line on standard error, below a progress bar that may still be open there."""
    bars = getattr(getattr(sys.modules.get("tqdm"), "tqdm", None), "_instances", ())
    bars = [bar for bar in bars if not getattr(bar.fp, "ends_lines", False)]
    with contextlib.suppress(OSError, ValueError):  # nobody reads it
        click.echo(("\n" if bars else "") + f"bitplan: {sentence}", err=True)


def leave(code: int) -> NoReturn:
    """End this process and all that it has started at once: threads in C are not waited for, and no handler runs."""
    with contextlib.suppress(Exception):
        import psutil

        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                child.kill()
    os._exit(code)
