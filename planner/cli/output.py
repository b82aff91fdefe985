"""Runs a verb as a command: its result, its errors and its exit code. Imports nothing heavy."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import click

from bitplan.planner.cli.ending import tell_interrupt
from bitplan.planner.crash import where_reported
from bitplan.planner.errors import (
    BAD_INPUT,
    CRASHED,
    INFEASIBLE,
    UNREAD,
    CallError,
    InfeasibleError,
    UserError,
    is_own,
)
from bitplan.planner.interrupts import current, recorded
from bitplan.planner.texts import cause_of, one_line, system_reason

JSON = click.Option(["--json", "as_json"], is_flag=True, help="Print one JSON document on standard output, no text.")
QUIET = click.Option(["-q", "--quiet"], is_flag=True, help="Print only the names of written files, no progress.")


class Command(click.Command):
    """A command with -h. click builds the help option for the context that comes first and keeps it, so its names must
    not depend on that context."""

    def get_help_option_names(self, ctx: click.Context) -> list[str]:
        return ["-h", "--help"]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse an option that is given twice, of which click would take the last one in silence."""
        if not ctx.resilient_parsing:
            _, _, order = self.make_parser(ctx).parse_args(args=list(args))
            single = [each for each in order if isinstance(each, click.Option) and not (each.multiple or each.is_flag)]
            if twice := [each for each in single if single.count(each) > 1]:
                raise UserError(f"{twice[0].opts[0]} is given twice; give it once")
        return super().parse_args(ctx, args)


WIDTH = 80  # of a drawing in a file or a pipe


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


class Ended(SystemExit):
    """The command ends with this exit code, and what there is to say has been said."""


class Interrupted(Ended):
    """The command was interrupted."""


@contextlib.contextmanager
def guarded(doing: str = "the command") -> Iterator[None]:
    """Turns every error into one line and an exit code. An interrupt is told with what was kept.

    doing: the verb and what it works on, for errors that BitPlan did not foresee.
    """
    with recorded(current()):
        try:
            yield
        except (Ended, click.ClickException, click.exceptions.Exit):  # click says these in its own words
            raise
        except InfeasibleError as error:
            stop(error, INFEASIBLE)
        except (KeyboardInterrupt, click.Abort) as error:
            _interrupted(error)
        except BrokenPipeError:
            leave_unread()
        except OSError as error:
            named = error.filename or doing
            stop(f"{named}: {system_reason(error)}; check the path, its permissions and the disk", BAD_INPUT)
        except BaseException as error:  # a panic of a library in Rust is no Exception
            if is_own(error):
                stop(_with_phase(error) if isinstance(error, CallError) else error, BAD_INPUT)
            _crash(error, doing)


def stop(error: Exception | str, code: int) -> NoReturn:
    """Print one line on standard error and exit."""
    with contextlib.suppress(OSError):  # nobody reads it
        click.echo("bitplan: " + one_line(error), err=True)
    raise Ended(code)


def _interrupted(error: BaseException) -> NoReturn:
    """Tell what was kept, once, and exit as a shell states for the signal."""
    raise Interrupted(tell_interrupt(error, current()))


def leave_unread() -> NoReturn:
    """Exit without a message after the reader of standard output, such as `head`, has closed it."""
    with contextlib.suppress(Exception):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise Ended(UNREAD)


def _crash(error: BaseException, doing: str) -> NoReturn:
    where = where_reported(error, doing)
    advice = "a library is missing or broken; install it again; " if isinstance(error, ImportError) else ""
    stop(f"{doing}: {_with_phase(error, cause_of(error, 300))}; {advice}{where}", CRASHED)


def _with_phase(error: BaseException, text: str = "") -> str:
    """The text of an error and the phase of the run in which it was raised, if that is known."""
    phases = ", ".join(one_line(note) for note in getattr(error, "__notes__", ()))
    return (text or one_line(error)) + (f" (phase: {phases})" if phases else "")


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
        raise Ended(printed.code)


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
        _draw(printed.drawing())
    if printed.wrote:
        names = [str(path) for path in printed.wrote]
        listed = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
        click.echo(f"wrote {listed}" + (f"; next: {printed.then}" if printed.then else ""))


def _draw(drawing: Any) -> None:
    from rich.console import Console

    class Drawn(Console):
        def on_broken_pipe(self) -> None:  # rich itself would exit with code 1
            raise BrokenPipeError

    known = sys.stdout.isatty() or "COLUMNS" in os.environ  # rich would take the width of another stream's terminal
    Drawn(highlight=False, width=None if known else WIDTH).print(drawing)
