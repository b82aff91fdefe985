"""Environment variables that libraries read, set for the length of a `with`. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Within the `with`, the variables have these values, also in processes that are started; then they are as before.

    Process-wide effect: the libraries offer no other way, or read it in processes that they start themselves.
    """
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
