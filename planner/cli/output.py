"""What the sub-commands share: options, results, errors and exit codes. Imports nothing heavy."""

from __future__ import annotations

import contextlib
import functools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import click

from bitplan.planner.cli.options import options
from bitplan.planner.errors import BAD_INPUT, INFEASIBLE, InfeasibleError
from bitplan.planner.texts import one_line


def guarded(verb: Callable[..., None]) -> Callable[..., None]:
    """Bad input becomes one line and an exit code, never a traceback; an interrupt keeps what is done."""

    @functools.wraps(verb)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            verb(*args, **kwargs)
        except InfeasibleError as error:
            stop(error, INFEASIBLE)
        except ValueError as error:  # every room's errors are ValueErrors
            stop(error, BAD_INPUT)
        except OSError as error:
            stop(f"{error.filename}: {error.strerror}; check the path, its permissions and the disk", BAD_INPUT)
        except KeyboardInterrupt:
            click.echo("interrupted; what was measured is kept, and the same command goes on from there", err=True)
            sys.exit(130)

    return run


def stop(error: Exception | str, code: int) -> NoReturn:
    """One line on the error, and the exit code."""
    click.echo("bitplan: " + one_line(error), err=True)
    sys.exit(code)


@dataclass(frozen=True)
class Printed:
    """What a verb says. result: an object that `bitplan.planner.texts.plain` knows, or a function that makes one, for
    --json;
    text: the same for people, None for `str(result)`; drawing: below it, of which rich knows how to print it; wrote:
    the files that were written; then: what to do next; code: the exit code. Functions are called where they are
    needed."""

    result: Any = None
    text: str | Callable[[], str] | None = ""
    drawing: Callable[[], Any] | None = None
    wrote: Sequence[Path] = ()
    then: str = ""
    code: int = 0


def telling(verb: Callable[..., Printed]) -> Callable[..., None]:
    """A guarded verb whose result is told as text, or with --json as one document, or with --quiet not at all."""

    @options(
        click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output, nothing else."),
        click.option("-q", "--quiet", is_flag=True, help="No progress, no prose: only the names of written files."),
    )
    @functools.wraps(verb)
    def run(*args: Any, as_json: bool, quiet: bool, **kwargs: Any) -> None:
        from bitplan.planner.progress import silenced

        aside = contextlib.redirect_stdout(sys.stderr) if as_json or quiet else contextlib.nullcontext()
        with silenced(quiet), aside:  # whatever a pipeline prints is no part of the result
            said = verb(*args, **kwargs)
            document = _document(said) if as_json else ""
        _say(said, quiet) if not as_json else click.echo(document)
        if said.code:
            sys.exit(said.code)

    return guarded(run)


def _document(said: Printed) -> str:
    from bitplan.planner.texts import plain

    found = plain(said.result() if callable(said.result) else said.result)
    wrote = {"wrote": plain(said.wrote)} if said.wrote else {}
    return json.dumps({**(found if isinstance(found, Mapping) else {}), **wrote}, indent=1, allow_nan=False)


def _say(said: Printed, quiet: bool) -> None:
    if quiet:
        for path in said.wrote:
            click.echo(path)
        return
    text = said.text() if callable(said.text) else str(said.result) if said.text is None else said.text
    if text:
        click.echo(text)
    if said.drawing is not None:
        from rich.console import Console

        Console(highlight=False).print(said.drawing())
    if said.wrote:
        some = [str(path) for path in said.wrote]
        names = ", ".join(some[:-1]) + " and " * (len(some) > 1) + some[-1]
        click.echo(f"wrote {names}" + (f"; next: {said.then}" if said.then else ""))
