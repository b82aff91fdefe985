"""The sub-commands that need no weights: what a file or a configuration holds, and what a profile costs here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from planner import completing
from planner.cli_options import FILE, THREADS, Said, options, set_threads, telling

SIZE = options(
    click.option("--width", type=int, help="Of a picture, in px [as the configuration says]."),
    click.option("--height", type=int, help="Likewise."),
    click.option("--frames", type=int, help="Of a video [as its pipelines usually make]."),
    click.option("--tokens", type=int, help="Of text [as its pipelines usually make]."),
    click.option("--batch", type=int, default=1, show_default=True, help="Samples a call; guidance makes two of one."),
)


@click.command()
@click.argument("file", type=FILE, required=False)
@click.option("--profile", type=FILE, help="A plan's profile: also tell what each role of layers gets.")
@click.option("--config", metavar="PATH", help="A component's config.json, or a pipeline's folder; no weights needed.")
@click.option("--schemes", default="", shell_complete=completing.schemes,
              help="For --config: comma-separated, whose bytes to tell [a default set].")  # fmt: skip
@click.option("--components", default="", help="For --config: comma-separated, of a pipeline [all that are modules].")
@SIZE
@telling
def inspect(file: Path | None, profile: Path | None, schemes: str, components: str, **rest: Any) -> Said:
    """What a profile or a plan FILE holds, or what a configuration alone tells of a model."""
    from planner import workflow
    from planner.inspecting import mapped

    chosen = tuple(filter(None, schemes.split(","))) or workflow.DEFAULT_SCHEMES
    names = tuple(filter(None, components.split(",")))
    found = workflow.inspect(file, profile, schemes=chosen, components=names, **rest)
    return Said(found, None, mapped(found))


@click.command()
@click.argument("profile", type=FILE)
@click.option("--out", type=FILE, required=True, help="The profile, a new file.")
@click.option("--config", metavar="PATH", help="Where the layers' shapes are, as for `inspect` [the profile itself].")
@SIZE
@THREADS
@telling
def cost(profile: Path, out: Path, threads: int | None, **rest: Any) -> Said:
    """Time PROFILE's schemes on this machine, a layer at a time with random weights: the model is not needed."""
    set_threads(threads)
    from planner import workflow

    workflow.cost(profile, out, **rest)
    then = f"bitplan solve {out} --latency 80% --out P.plan.yaml"
    return Said(lambda: workflow.inspect(out), wrote=[out], then=then)
