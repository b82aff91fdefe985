"""Runs a verb as a command: its result, its errors and its exit code. Imports nothing heavy."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import click

from bitplan.planner.errors import BAD_INPUT, INFEASIBLE, InfeasibleError
from bitplan.planner.texts import one_line

JSON = click.Option(["--json", "as_json"], is_flag=True, help="Print one JSON document on standard output, no text.")
QUIET = click.Option(["-q", "--quiet"], is_flag=True, help="Print only the names of written files, no progress.")


class Command(click.Command):
    """A command with -h. click builds the help option for the context that comes first and keeps it, so its names must
    not depend on that context."""

    def get_help_option_names(self, ctx: click.Context) -> list[str]:
        return ["-h", "--help"]


@dataclass(frozen=True)
class Printed:
    """What a command prints.

    Attributes:
        result: the object for --json, or a function that makes it.
        text: what people read; None for `str(result)`.
        drawing: makes what rich prints below the text.
        wrote: the files that the verb wrote.
        then: what to do next.
        code: the exit code.
    """

    result: Any = None
    text: str | None = None
    drawing: Callable[[], Any] | None = None
    wrote: Sequence[Path] = ()
    then: str = ""
    code: int = 0


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Turns bad input into one line and an exit code; an interrupt keeps what is measured."""
    try:
        yield
    except InfeasibleError as error:
        stop(error, INFEASIBLE)
    except ValueError as error:  # the errors of all packages are ValueErrors
        stop(error, BAD_INPUT)
    except OSError as error:
        stop(f"{error.filename}: {error.strerror}; check the path, its permissions and the disk", BAD_INPUT)
    except KeyboardInterrupt:
        click.echo("interrupted; what was measured is kept, and the same command continues from there", err=True)
        sys.exit(130)


def stop(error: Exception | str, code: int) -> NoReturn:
    """Print one line on standard error and exit."""
    click.echo("bitplan: " + one_line(error), err=True)
    sys.exit(code)


def show(run: Callable[[], Printed], as_json: bool, quiet: bool) -> None:
    """Run a verb and print its result as text, as one JSON document, or only the names of written files."""
    from bitplan.planner.progress import silenced

    aside = contextlib.redirect_stdout(sys.stderr) if as_json or quiet else contextlib.nullcontext()
    with silenced(quiet), aside:  # what a pipeline prints is not part of the result
        printed = run()
        document = _document(printed) if as_json else ""
    if as_json:
        click.echo(document)
    elif quiet:
        for path in printed.wrote:
            click.echo(path)
    else:
        _print(printed)
    if printed.code:
        sys.exit(printed.code)


def _document(printed: Printed) -> str:
    from bitplan.planner.texts import plain

    result = plain(printed.result() if callable(printed.result) else printed.result)
    wrote = {"wrote": plain(printed.wrote)} if printed.wrote else {}
    return json.dumps({**(result if isinstance(result, Mapping) else {}), **wrote}, indent=1, allow_nan=False)


def _print(printed: Printed) -> None:
    text = str(printed.result) if printed.text is None else printed.text
    if text:
        click.echo(text)
    if printed.drawing is not None:
        from rich.console import Console

        Console(highlight=False).print(printed.drawing())
    if printed.wrote:
        names = [str(path) for path in printed.wrote]
        listed = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
        click.echo(f"wrote {listed}" + (f"; next: {printed.then}" if printed.then else ""))
