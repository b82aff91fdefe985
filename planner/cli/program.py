"""The command itself: standard streams that take every text, and one guard around reading options and running."""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import click

from bitplan.planner.cli.ending import answering, leave
from bitplan.planner.cli.output import Interrupted, guarded

_ERRORS = "bitplan"  # the name of `_escaped` among Python's handlers of encoding errors


class GuardedGroup(click.Group):
    """The group of all commands. Whatever is raised becomes one line and an exit code."""

    def __call__(self, *args: Any, **more: Any) -> Any:
        """Run as the command of this process, which then ends. Where it is interrupted, all that it started ends."""
        if threading.current_thread() is not threading.main_thread():  # which no signal reaches
            return self.main(*args, **more)
        try:
            with answering(leave):
                return self.main(*args, **more)
        except SystemExit as ended:
            if isinstance(ended, Interrupted):
                leave(ended.code)
            raise

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order of work, in which they were added."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the whole first sentence on each command, where click cuts it after one line."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, _first_sentence(command.help)) for name, command in self.commands.items()])

    def main(self, *args: Any, standalone_mode: bool = True, **more: Any) -> Any:
        if not standalone_mode:
            return super().main(*args, standalone_mode=False, **more)
        _open_streams()
        try:
            with guarded():
                code = _flushed(partial(super().main, *args, standalone_mode=False, **more))
        except click.ClickException as error:
            error.show()
            code = error.exit_code
        sys.exit(code if isinstance(code, int) else 0)


def _first_sentence(text: str | None) -> str:
    return re.split(r"(?<=\.)\s", (text or "").strip(), maxsplit=1)[0]


def _flushed(run: Callable[[], Any]) -> Any:
    """Run, then flush standard output, so that a reader that has closed it is noticed before the process ends."""
    try:
        return run()
    finally:
        sys.stdout.flush()


def _open_streams() -> None:
    """Make the standard streams take every text, and open closed ones, so that no other file gets their number."""
    with contextlib.suppress(OSError):
        while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(number)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - until the process ends
    codecs.register_error(_ERRORS, _escaped)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_ERRORS)


def _escaped(error: UnicodeError) -> tuple[str | bytes, int]:
    """The bytes of a file's name as they were, and an escape for any other character that the encoding lacks."""
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)
