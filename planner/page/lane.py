"""Runs the work of requests in threads that end with the process, and of several requests of a page only the newest."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from bitplan.planner.errors import UserError

T = TypeVar("T")


class OutdatedError(UserError):
    """A newer request of the same page has replaced this one."""


class Lane:
    """One request runs at a time, and of each page the newest waits. An older one ends with OutdatedError: at once
    while it waits, and at its next call of `still` while it runs."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._newest: dict[str, int] = {}  # page -> the number of its newest request
        self._open: Counter[str] = Counter()  # page -> its requests that wait or run
        self._number, self._running = 0, False

    def run(self, page: str, work: Callable[[Callable[[], None]], T]) -> T:
        """The result of `work(still)`. page: the page that asks. Raises OutdatedError, and what `work` raises."""
        with self._entered(page) as number:

            def still() -> None:
                if self._newest.get(page) != number:
                    raise OutdatedError("a newer request of this page has replaced this one")

            with self._changed:
                while self._running and self._newest.get(page) == number:
                    self._changed.wait()
                still()
                self._running = True
            try:
                return work(still)
            finally:
                with self._changed:
                    self._running = False
                    self._changed.notify_all()

    @contextmanager
    def _entered(self, page: str) -> Iterator[int]:
        with self._changed:
            self._number += 1
            number = self._newest[page] = self._number
            self._open[page] += 1
            self._changed.notify_all()
        try:
            yield number
        finally:
            with self._changed:
                self._open[page] -= 1
                if not self._open[page]:  # so that pages which are gone leave nothing behind
                    del self._open[page], self._newest[page]


def outdated(still: Callable[[], None]) -> bool:
    """Whether a newer request of the same page has replaced the one that `still` belongs to."""
    try:
        still()
    except OutdatedError:
        return True
    return False


async def in_thread(work: Callable[[], T]) -> T:
    """The result of `work`, from a thread that does not keep the process alive. Raises what `work` raises."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def tell(result: Any, error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(error)

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except SystemExit as exits:  # of a pipeline's code; in a task it would end the server
            error = RuntimeError(f"the code called sys.exit({exits.code})")
        except BaseException as raised:
            error = raised  # type: ignore[assignment]
        with contextlib.suppress(RuntimeError):  # the server has ended in the meantime
            loop.call_soon_threadsafe(tell, result, error)

    threading.Thread(target=run, daemon=True).start()
    return await done
