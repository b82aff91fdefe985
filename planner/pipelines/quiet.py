"""Silences diffusers and transformers while they load or run, so that BitPlan's own progress is the only one shown.

Process-wide effect: both libraries keep their verbosity and their progress bars in globals, and a load takes no option
for either. The same holds for Python's filters of warnings. Blocks of several threads may overlap: the first one that
begins silences, and the last one that ends restores what was before.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field


@dataclass(eq=False)
class _Shared:
    """A process-wide state that overlapping blocks share.

    Attributes:
        enter: makes the context that changes the state.
        lock: held while the state changes.
        users: the number of blocks that run.
        undo: restores the state.
    """

    enter: Callable[[], AbstractContextManager[None]]
    lock: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0
    undo: ExitStack = field(default_factory=ExitStack)

    @contextmanager
    def used(self) -> Iterator[None]:
        """Within the `with`, the state is changed."""
        with self.lock:
            if not self.users:
                self.undo.enter_context(self.enter())
            self.users += 1
        try:
            yield
        finally:
            with self.lock:
                self.users -= 1
                if not self.users:
                    self.undo.close()


@contextmanager
def quiet() -> Iterator[None]:
    """Within the `with`, the libraries log and draw nothing, and Python shows no warnings: what fails, raises."""
    with quiet_libraries(), _WARNINGS.used():
        yield


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Within the `with`, diffusers and transformers log nothing and draw no bars; then they are as before."""
    with _LIBRARIES.used():
        yield


@contextmanager
def _silent_libraries() -> Iterator[None]:
    import diffusers.utils.logging as diffusers_logging
    import transformers.utils.logging as transformers_logging
    from huggingface_hub.utils import are_progress_bars_disabled

    with ExitStack() as stack:
        stack.callback(_show_hub_bars, not are_progress_bars_disabled())  # transformers switches them with its own
        for library in (diffusers_logging, transformers_logging):
            stack.callback(library.set_verbosity, library.get_verbosity())
            library.set_verbosity(logging.CRITICAL)
            if library.is_progress_bar_enabled():
                stack.callback(library.enable_progress_bar)
                library.disable_progress_bar()
        yield


@contextmanager
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


_LIBRARIES, _WARNINGS = _Shared(_silent_libraries), _Shared(_no_warnings)


def _show_hub_bars(show: bool) -> None:
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if show is are_progress_bars_disabled():
        (enable_progress_bars if show else disable_progress_bars)()
