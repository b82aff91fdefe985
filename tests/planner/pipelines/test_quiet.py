"""Blocks of several threads that overlap: silent until the last one ends, then as before."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager

import diffusers.utils.logging as diffusers_logging
import pytest
import transformers.utils.logging as transformers_logging

from bitplan.planner.pipelines.quiet import quiet, quiet_libraries

CONTEXTS: dict[str, Callable[[], AbstractContextManager[None]]] = {"quiet": quiet, "quiet_libraries": quiet_libraries}


def state() -> tuple[object, ...]:
    libraries = (diffusers_logging, transformers_logging)
    return (
        *((library.get_verbosity(), library.is_progress_bar_enabled()) for library in libraries),
        list(warnings.filters),
    )


@pytest.mark.parametrize("name", CONTEXTS)
def test_overlapping_threads_leave_the_process_as_it_was(name: str) -> None:
    """The first thread ends while the second one is still inside."""
    before, first_out, second_in = state(), threading.Event(), threading.Event()
    inside: list[tuple[object, ...]] = []

    def first() -> None:
        with CONTEXTS[name]():
            second_in.wait(10)
        first_out.set()

    def second() -> None:
        with CONTEXTS[name]():
            second_in.set()
            first_out.wait(10)
            inside.append(state())

    threads = [threading.Thread(target=first)]
    threads[0].start()
    while state() == before:  # until the first thread is inside
        threading.Event().wait(0.001)
    threads.append(threading.Thread(target=second))
    threads[1].start()
    for thread in threads:
        thread.join(20)
    assert inside and inside[0] != before
    assert state() == before
