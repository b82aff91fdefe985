"""The sub-commands that choose, and that ask about what was chosen: none needs torch, `solve --rerank` apart."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from planner.cli_options import FILE, KERNELS, guarded, options, pairs, pinned
from planner.errors import BAD_INPUT

BUDGETS = options(
    click.option("--memory", help="Budget on weights: 35% of full precision, 900MiB, 1.2GB."),
    click.option("--latency", help="Budget on the layers' time an image: 80% of full precision, 120ms."),
    click.option("--bits", type=float, help="Budget on mean bits a weight, scales included."),
    click.option("--cap", "caps", multiple=True, metavar="COLUMN=MOST",
                 help="Bound a loss (nsr, dssim, clip_drop, embed_drift, output_nsr, spectral, lpips, pixcorr, "
                      "flicker, quality, alignment), or one of your own, by a number or a scheme: alignment=w8a8."),
    click.option("--objective", default="both", show_default=True,
                 help="quality, alignment, both, quality=1,nsr=0.5, or lexicographic:alignment,quality."),
    click.option("--slack", type=float, default=0.0, show_default=True,
                 help="Share by which a lexicographic objective may worsen what came before."),
    click.option("--confidence", type=float, metavar="SHARE",
                 help="Plan with each loss at its upper bound of this confidence, such as 0.95 [mean losses]."),
    click.option("--pin", "pins", multiple=True, metavar="LAYER=SCHEME",
                 help="Fix the scheme of a layer, or of all layers of a role: role:in=w8a8."),
    click.option("--keep", multiple=True, metavar="LAYER", help="The same with the scheme keep: role:in, role:out."),
    KERNELS,
)  # fmt: skip


def _time_limit(what: str) -> Callable[..., Any]:
    return click.option("--time-limit", type=float, default=60.0, show_default=True, help=f"Seconds for {what}.")


_GAP = click.option("--gap", type=float, default=0.0, show_default=True, help="Share of the objective left unproven.")
_BACKEND = click.option("--backend", help="highs or cbc [the first that is there].")


@click.command()
@click.argument("profile", type=FILE)
@click.option("--out", type=FILE, required=True, help="The plan file.")
@BUDGETS
@click.option("--uniform", metavar="SCHEME", help="Take this scheme everywhere instead of solving.")
@_time_limit("the solver")
@_GAP
@click.option("--solver", default="exact", show_default=True, help="exact, ilp, lagrangian, greedy or split.")
@_BACKEND
@click.option("--worth", is_flag=True, help="Also find out what one more MiB or ms would save.")
@click.option("--candidates", type=click.IntRange(1), default=1, show_default=True, help="How many plans.")
@click.option("--distance", type=click.IntRange(1), default=1, show_default=True,
              help="In how many layers any two of them differ.")  # fmt: skip
@click.option("--rerank", metavar="PIPELINE|joint",
              help="Measure the plans on it, or estimate them with interactions, and take the best.")  # fmt: skip
@click.option("--prompts", type=FILE, help="For --rerank: a file with one prompt a line [8 held-out ones].")
@click.option("--clip", help="For --rerank: folder or hub id of the CLIPModel that measures alignment.")
@guarded
def solve(
    profile: Path, out: Path, caps: tuple[str, ...], pins: tuple[str, ...], keep: tuple[str, ...], **rest: Any
) -> None:
    """Choose the best scheme of every layer of PROFILE within budgets."""
    from planner import workflow
    from planner.inspecting import plan_text

    plan = workflow.solve(profile, out, caps=pairs(caps, "--cap"), pins=pinned(pins, keep), **rest)
    click.echo(plan_text(plan, profile))
    click.echo(f"wrote {out}; next: bitplan apply {out} {plan.model['name']} --prompt '...' --out img.png")


@click.command()
@click.argument("profile", type=FILE)
@click.option("--out", type=FILE, required=True, help="The JSON file.")
@click.option("--column", default="bytes", show_default=True, help="What varies: bytes, ms or a loss.")
@click.option("--from", "start", required=True, help="One end, as a budget on the column is written: 10%, 900MiB.")
@click.option("--to", "stop", required=True, help="The other end.")
@click.option("--count", type=int, default=50, show_default=True, help="How many limits.")
@click.option("--plans", type=FILE, help="A folder for the plan of each limit.")
@BUDGETS
@_time_limit("each limit")
@_GAP
@_BACKEND
@guarded
def frontier(
    profile: Path, out: Path, caps: tuple[str, ...], pins: tuple[str, ...], keep: tuple[str, ...], **rest: Any
) -> None:
    """The best plan of PROFILE at every limit of one column, all other budgets held."""
    from planner import workflow

    found = workflow.frontier(profile, out, caps=pairs(caps, "--cap"), pins=pinned(pins, keep), **rest)
    click.echo(str(found))
    click.echo(f"wrote {out}")


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
@click.option("--backend", help="For --prove: highs or cbc [not the plan's own, where both are there].")
@guarded
def verify(plan: Path, profile: Path, **rest: Any) -> None:
    """Check PLAN against its PROFILE in exact arithmetic, without the solver."""
    from planner import workflow

    found = workflow.verify(plan, profile, **rest)
    for failure in found.failures:
        click.echo(f"bitplan: {plan}: {failure}", err=True)
    if found.failures:
        sys.exit(BAD_INPUT)
    click.echo(str(found))


@click.command()
@click.argument("plan", type=FILE)
@click.argument("profile", type=FILE)
@click.argument("layer")
@_time_limit("each scheme")
@_GAP
@_BACKEND
@guarded
def why(plan: Path, profile: Path, layer: str, **rest: Any) -> None:
    """What every other scheme of LAYER would cost in PLAN, by its PROFILE."""
    from planner import workflow

    click.echo(str(workflow.why(plan, profile, layer, **rest)))


@click.command()
@click.argument("plan", type=FILE)
@click.argument("profile", type=FILE)
@guarded
def predict(plan: Path, profile: Path) -> None:
    """What PLAN does as a whole: its layers' losses added up, and with their interactions."""
    from planner import workflow
    from planner.predicting import prediction_text

    click.echo(prediction_text(workflow.predict(plan, profile)))
