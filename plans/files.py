"""Files that are written whole or not at all. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """Yields a path beside `path` to write to; on success it replaces `path` in one move, else it is removed.

    A reader never sees half a file. Raises OSError where the file cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        if partial.parent.is_dir():
            partial.unlink(missing_ok=True)
