"""Options that several commands share, and the parsing of their values."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from bitplan.planner.cli import completion as completing
from bitplan.planner.cli.completion import METRICS
from bitplan.planner.measurement.engines import ENGINES

FILE = click.Path(path_type=Path)


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
