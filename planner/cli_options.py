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

from planner import completing
from planner.completing import METRICS
from planner.engines import ENGINES
from planner.errors import BAD_INPUT, INFEASIBLE, InfeasibleError

FILE = click.Path(path_type=Path)


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
    click.echo("bitplan: " + " ".join(str(error).split()), err=True)
    sys.exit(code)


@dataclass(frozen=True)
class Said:
    """What a verb says. result: an object that `planner.plain.plain` knows, or a function that makes one, for --json;
    text: the same for people, None for `str(result)`; drawing: below it, of which rich knows how to print it; wrote:
    the files that were written; then: what to do next; code: the exit code. Functions are called where they are
    needed."""

    result: Any = None
    text: str | Callable[[], str] | None = ""
    drawing: Callable[[], Any] | None = None
    wrote: Sequence[Path] = ()
    then: str = ""
    code: int = 0


def telling(verb: Callable[..., Said]) -> Callable[..., None]:
    """A guarded verb whose result is told as text, or with --json as one document, or with --quiet not at all."""

    @options(
        click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output, nothing else."),
        click.option("-q", "--quiet", is_flag=True, help="No progress, no prose: only the names of written files."),
    )
    @functools.wraps(verb)
    def run(*args: Any, as_json: bool, quiet: bool, **kwargs: Any) -> None:
        from planner.progress import silenced

        aside = contextlib.redirect_stdout(sys.stderr) if as_json or quiet else contextlib.nullcontext()
        with silenced(quiet), aside:  # whatever a pipeline prints is no part of the result
            said = verb(*args, **kwargs)
            document = _document(said) if as_json else ""
        _say(said, quiet) if not as_json else click.echo(document)
        if said.code:
            sys.exit(said.code)

    return guarded(run)


def _document(said: Said) -> str:
    from planner.plain import plain

    found = plain(said.result() if callable(said.result) else said.result)
    wrote = {"wrote": plain(said.wrote)} if said.wrote else {}
    return json.dumps({**(found if isinstance(found, Mapping) else {}), **wrote}, indent=1, allow_nan=False)


def _say(said: Said, quiet: bool) -> None:
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


def options(*all_of: Callable[..., Any]) -> Callable[..., Any]:
    """Several options as one decorator."""
    return lambda verb: functools.reduce(lambda inner, option: option(inner), reversed(all_of), verb)


def generation(seed: int) -> Callable[..., Any]:
    """How images are made."""
    return options(
        click.option("--steps", type=int, help="Denoising steps an image [the pipeline's default]."),
        click.option("--guidance", type=float, help="Guidance scale [the pipeline's default]."),
        click.option("--seed", type=int, default=seed, show_default=True, help="Prompt i's noise is of seed + i."),
    )


ENGINE = options(
    click.option("--engine", type=click.Choice(list(ENGINES)), default="local", show_default=True,
                 help="Where to measure: in this process, or by the workers of a Ray cluster."),
    click.option("--address", help="For --engine ray: HOST:PORT of a running cluster [one is started here]."),
    click.option("--workers", type=click.IntRange(1),
                 help="For --engine ray: how many [one a CPU, as memory allows]."),
)  # fmt: skip
PROMPTS = click.option("--prompts", type=FILE, help="One prompt a line, or a YAML list of what calls are given.")
CALL = click.option("--call", multiple=True, metavar="NAME=VALUE", help="Given to each call, such as height=512.")


def judged(verb: Callable[..., Any]) -> Callable[..., Any]:
    """How a subject is called, and by which metrics it is judged."""
    return options(
        PROMPTS,
        CALL,
        click.option("--metric", "metrics", multiple=True, metavar="NAME", shell_complete=completing.offer(*METRICS),
                     help="One more: a built-in name, or package.module:name of your own."),
        click.option("--clip", help="Folder or hub id of the CLIPModel that measures alignment."),
    )(verb)  # fmt: skip


def called(texts: tuple[str, ...]) -> dict[str, Any]:
    """NAME=VALUE texts, their values read as YAML: 512 is a number."""
    import yaml

    return {name: yaml.safe_load(value) for name, value in pairs(texts, "--call").items()}


KERNELS = click.option(
    "--kernels", type=click.Choice(["int", "fake"]), default="int", show_default=True,
    help="int: only schemes that a real kernel runs here; fake: simulate, any scheme.",
)  # fmt: skip
MISMATCH = click.option("--allow-mismatch", is_flag=True, help="Take a plan of another model with the same layers.")
OFFLOAD = click.option("--offload-folder", type=FILE, metavar="FOLDER",
                       help="On a disk: where converted weights lie instead of in memory.")  # fmt: skip
THREADS = click.option("--threads", type=click.IntRange(1), help="CPU threads for torch [all].")


def pairs(texts: tuple[str, ...], option: str) -> dict[str, str]:
    """NAME=VALUE texts as a dictionary."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise ValueError(f"{option} {text!r} is no NAME=VALUE; write for example alignment=w8a8")
        if name in found:
            raise ValueError(f"{option} {name} is given twice, as {found[name]} and {value}; give it once")
        found[name] = value
    return found


def pinned(pins: tuple[str, ...], keep: tuple[str, ...]) -> dict[str, str]:
    """What --pin and --keep say together: layer or role -> scheme."""
    found = pairs(pins, "--pin")
    for name in keep:
        if found.setdefault(name, "keep") != "keep":
            raise ValueError(f"--keep {name} and --pin {name}={found[name]} differ; give one of them")
    return found


def set_threads(threads: int | None) -> None:
    """Of torch, which is loaded only where a number is given."""
    if threads:
        import torch

        torch.set_num_threads(threads)
