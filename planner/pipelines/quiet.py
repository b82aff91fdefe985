"""Silences diffusers and transformers while they load or run, so that BitPlan's own progress is the only one shown.

Process-wide effect: both libraries keep their verbosity and their progress bars in globals, and a load takes no option
for either.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Within the `with`, the libraries log and draw nothing, and Python shows no warnings: what fails, raises."""
    with quiet_libraries(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Within the `with`, diffusers and transformers log nothing and draw no bars; then they are as before."""
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


def _show_hub_bars(show: bool) -> None:
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if show is are_progress_bars_disabled():
        (enable_progress_bars if show else disable_progress_bars)()
