"""The sub-commands that choose, and that ask about what was chosen: none needs torch, `solve --rerank` apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from planner import completing
from planner.arguments import SPACINGS
from planner.cli_options import (
    FILE,
    KERNELS,
    PROMPTS,
    THREADS,
    Said,
    guarded,
    options,
    pairs,
    pinned,
    set_threads,
    telling,
)
from planner.completing import FAMILIES, LOSSES
from planner.errors import BAD_INPUT

BUDGETS = options(
    click.option("--memory", help="Budget on weights: 35% of full precision, 900MiB, 1.2GB."),
    click.option("--latency", help="Budget on the layers' time an image: 80% of full precision, 120ms."),
    click.option("--bits", type=float, help="Budget on mean bits a weight, scales included."),
    click.option("--cap", "caps", multiple=True, metavar="COLUMN=MOST",
                 shell_complete=completing.caps,
                 help=f"Bound a loss ({', '.join((*LOSSES, *FAMILIES))}), or one of your own, by a number or a scheme: "
                      "alignment=w8a8."),
    click.option("--objective", default="both", show_default=True, shell_complete=completing.objectives,
                 help="quality, alignment, both, quality=1,nsr=0.5, or lexicographic:alignment,quality."),
    click.option("--slack", type=float, default=0.0, show_default=True,
                 help="Share by which a lexicographic objective may worsen what came before."),
    click.option("--confidence", type=float, metavar="SHARE",
                 help="Plan with each loss at its upper bound of this confidence, such as 0.95 [mean losses]."),
    click.option("--pin", "pins", multiple=True, metavar="LAYER=SCHEME", shell_complete=completing.pins,
                 help="Fix the scheme of a layer, or of all layers of a role: role:in=w8a8."),
    click.option("--keep", multiple=True, metavar="LAYER", shell_complete=completing.places,
                 help="The same with the scheme keep: role:in, role:out."),
    KERNELS,
)  # fmt: skip


def _time_limit(what: str) -> Callable[..., Any]:
    return click.option("--time-limit", type=float, default=60.0, show_default=True, help=f"Seconds for {what}.")


_GAP = click.option("--gap", type=float, default=0.0, show_default=True, help="Share of the objective left unproven.")
_BACKENDS = completing.members("solvers.backends", "BACKENDS")
_BACKEND = click.option("--backend", shell_complete=_BACKENDS, help="highs or cbc [the first that is there].")


@click.command()
@click.argument("profile", type=FILE)
@click.option("--out", type=FILE, required=True, help="The plan file.")
@BUDGETS
@click.option(
    "--uniform",
    metavar="SCHEME",
    shell_complete=completing.schemes,
    help="Take this scheme everywhere instead of solving.",
)
@_time_limit("the solver")
@_GAP
@click.option("--solver", default="exact", show_default=True,
              shell_complete=completing.members("solvers.strategies", "STRATEGIES"),
              help="exact, ilp, lagrangian, greedy or split.")  # fmt: skip
@_BACKEND
@click.option("--worth", is_flag=True, help="Also find out what one more MiB or ms would save.")
@click.option("--candidates", type=click.IntRange(1), default=1, show_default=True, help="How many plans.")
@click.option("--distance", type=click.IntRange(1), default=1, show_default=True,
              help="In how many layers any two of them differ.")  # fmt: skip
@click.option("--rerank", metavar="PIPELINE|joint",
              help="Measure the plans on it, or estimate them with interactions, and take the best.")  # fmt: skip
@click.option("--prompts", type=FILE, help="For --rerank: a file with one prompt a line [8 held-out ones].")
@click.option("--clip", help="For --rerank: folder or hub id of the CLIPModel that measures alignment.")
@telling
def solve(
    profile: Path, out: Path, caps: tuple[str, ...], pins: tuple[str, ...], keep: tuple[str, ...], **rest: Any
) -> Said:
    """Choose the best scheme of every layer of PROFILE within budgets."""
    from planner import workflow
    from planner.inspecting import inspect_plan, mapped

    plan = workflow.solve(profile, out, caps=pairs(caps, "--cap"), pins=pinned(pins, keep), **rest)
    found = inspect_plan(plan, profile)
    then = f"bitplan apply {out} {plan.model['name']} --prompt '...' --out img.png"
    return Said(found, None, mapped(found), wrote=[out], then=then)


@click.command()
@click.argument("profile", type=FILE)
@click.option("--out", type=FILE, required=True, help="A folder for sweep.json, plans and pictures; one is continued.")
@click.option("--by", default="memory", show_default=True, shell_complete=completing.columns,
              help="What varies: memory, latency, bits or a loss.")  # fmt: skip
@click.option("--points", type=int, default=40, show_default=True, help="How many limits.")
@click.option("--from", "start", help="One end, as a budget on it is written: 10%, 900MiB [the least there is].")
@click.option("--to", "stop", help="The other end [what the best plan without a limit has].")
@click.option("--spacing", type=click.Choice(SPACINGS), help="Even ratios or even steps [log above 0].")
@BUDGETS
@_time_limit("each limit")
@_GAP
@_BACKEND
@click.option("--images", type=click.IntRange(0), default=0, show_default=True,
              help="Paint so many held-out prompts by each plan, and measure its losses.")  # fmt: skip
@click.option("--paint", type=click.IntRange(1), help="Paint so many limits, evenly spread [all].")
@click.option("--pipeline", help="What paints [the profile's own].")
@PROMPTS
@click.option("--count", type=click.IntRange(2), help="Prompts to measure losses on [16].")
@click.option("--seed", type=int, default=1000, show_default=True, help="Prompt i's noise is of seed + i.")
@click.option("--clip", help="Folder or hub id of the CLIPModel that measures alignment.")
@THREADS
@telling
def sweep(
    profile: Path, out: Path, caps: tuple[str, ...], pins: tuple[str, ...], keep: tuple[str, ...],
    threads: int | None, **rest: Any,
) -> Said:  # fmt: skip
    """The best plan of PROFILE at every limit of one column, all other budgets held, and what it paints."""
    set_threads(threads)
    from planner import workflow
    from planner.showing.table import frontier_text

    found = workflow.sweep(profile, out, caps=pairs(caps, "--cap"), pins=pinned(pins, keep), **rest)
    then = f"bitplan report {out} --out report.html"
    return Said(found, lambda: frontier_text(found), wrote=[out], then=then)


@click.command()
@click.argument("profile", type=FILE)
@click.option("--plans", type=FILE, help="The folder where plans are saved [the profile's own].")
@click.option("--pipeline", help="What to paint with [what PROFILE was measured on].")
@click.option("--port", type=int, default=0, show_default=True, help="Of 127.0.0.1; 0: any that is free.")
@click.option("--open", is_flag=True, help="Also open the page in a browser.")
@KERNELS
@click.option("--steps", type=int, help="Denoising steps of a picture [as PROFILE was measured].")
@click.option("--guidance", type=float, help="Guidance scale [as PROFILE was measured].")
@guarded
def explore(profile: Path, **rest: Any) -> None:
    """Serve a page for this machine alone: drag the budgets of PROFILE, see its plan, save it, paint with it."""
    from planner import workflow

    workflow.explore(profile, **rest)


@click.command()
@click.argument("plan", type=FILE)
@click.argument("profile", type=FILE)
@click.option("--prove", is_flag=True, help="Also solve again, as one plain integer program, and compare.")
@_time_limit("--prove")
@click.option(
    "--backend", shell_complete=_BACKENDS, help="For --prove: highs or cbc [not the plan's own, where both are there]."
)
@telling
def verify(plan: Path, profile: Path, **rest: Any) -> Said:
    """Check PLAN against its PROFILE in exact arithmetic, without the solver."""
    from planner import workflow

    found = workflow.verify(plan, profile, **rest)
    for failure in found.failures:
        click.echo(f"bitplan: {plan}: {failure}", err=True)
    return Said(found, "" if found.failures else None, code=BAD_INPUT if found.failures else 0)


@click.command()
@click.argument("plan", type=FILE)
@click.argument("profile", type=FILE)
@click.argument("layer", shell_complete=completing.layers)
@_time_limit("each scheme")
@_GAP
@_BACKEND
@telling
def why(plan: Path, profile: Path, layer: str, **rest: Any) -> Said:
    """What every other scheme of LAYER would cost in PLAN, by its PROFILE."""
    from planner import workflow

    return Said(workflow.why(plan, profile, layer, **rest), None)


@click.command()
@click.argument("plan", type=FILE)
@click.argument("profile", type=FILE)
@telling
def predict(plan: Path, profile: Path) -> Said:
    """What PLAN does as a whole: its layers' losses added up, and with their interactions."""
    from planner import workflow
    from planner.predicting import prediction_text

    found = workflow.predict(plan, profile)
    return Said({"metrics": list(found.values())}, lambda: prediction_text(found))
