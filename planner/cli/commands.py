"""The command `bitplan`: one sub-command a verb. Heavy imports wait until a verb runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from bitplan.planner.cli import completion as completing
from bitplan.planner.cli.completion import FAMILIES, LOSSES
from bitplan.planner.cli.options import (
    CALL,
    ENGINE,
    FILE,
    KERNELS,
    MISMATCH,
    OFFLOAD,
    PROMPTS,
    THREADS,
    called,
    generation,
    judged,
    options,
    pairs,
    pinned,
    set_threads,
)
from bitplan.planner.cli.output import Printed, guarded, telling
from bitplan.planner.errors import BAD_INPUT, NO
from bitplan.planner.measurement.methods import DTYPES, METHODS
from bitplan.planner.units import SPACINGS
from bitplan.planner.verbs.parameters import BASELINES

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
def inspect(file: Path | None, profile: Path | None, schemes: str, components: str, **rest: Any) -> Printed:
    """What a profile or a plan FILE holds, or what a configuration alone tells of a model."""
    from bitplan.planner.verbs.look import inspect as workflow_inspect
    from bitplan.planner.verbs.parameters import DEFAULT_SCHEMES

    chosen = tuple(filter(None, schemes.split(","))) or DEFAULT_SCHEMES
    names = tuple(filter(None, components.split(",")))
    found = workflow_inspect(file, profile, schemes=chosen, components=names, **rest)
    return Printed(found, None, found.drawing if found.plan else None)


@click.command()
@click.argument("profile", type=FILE)
@click.option("--out", type=FILE, required=True, help="The profile, a new file.")
@click.option("--config", metavar="PATH", help="Where the layers' shapes are, as for `inspect` [the profile itself].")
@SIZE
@THREADS
@telling
def cost(profile: Path, out: Path, threads: int | None, **rest: Any) -> Printed:
    """Time PROFILE's schemes on this machine, a layer at a time with random weights: the model is not needed."""
    set_threads(threads)
    from bitplan.planner.verbs.look import inspect as workflow_inspect
    from bitplan.planner.verbs.measure import cost as workflow_cost

    workflow_cost(profile, out, **rest)
    then = f"bitplan solve {out} --latency 80% --out P.plan.yaml"
    return Printed(lambda: workflow_inspect(out), wrote=[out], then=then)


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
_BACKENDS = completing.members("bitplan.solvers.programs.backends", "BACKENDS")
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
              shell_complete=completing.members("bitplan.solvers.strategies", "STRATEGIES"),
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
) -> Printed:
    """Choose the best scheme of every layer of PROFILE within budgets."""
    from bitplan.planner.verbs.choose import solve as workflow_solve
    from bitplan.planner.views.inspect import inspect_plan

    plan = workflow_solve(profile, out, caps=pairs(caps, "--cap"), pins=pinned(pins, keep), **rest)
    found = inspect_plan(plan, profile)
    then = f"bitplan apply {out} {plan.model['name']} --prompt '...' --out img.png"
    return Printed(found, None, found.drawing, wrote=[out], then=then)


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
) -> Printed:  # fmt: skip
    """The best plan of PROFILE at every limit of one column, all other budgets held, and what it paints."""
    set_threads(threads)
    from bitplan.planner.verbs.choose import sweep as workflow_sweep

    found = workflow_sweep(profile, out, caps=pairs(caps, "--cap"), pins=pinned(pins, keep), **rest)
    then = f"bitplan report {out} --out report.html"
    return Printed(found, None, wrote=[out], then=then)


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
    from bitplan.planner.verbs.look import explore as workflow_explore

    workflow_explore(profile, **rest)


@click.command()
@click.argument("plan", type=FILE)
@click.argument("profile", type=FILE)
@click.option("--prove", is_flag=True, help="Also solve again, as one plain integer program, and compare.")
@_time_limit("--prove")
@click.option(
    "--backend", shell_complete=_BACKENDS, help="For --prove: highs or cbc [not the plan's own, where both are there]."
)
@telling
def verify(plan: Path, profile: Path, **rest: Any) -> Printed:
    """Check PLAN against its PROFILE in exact arithmetic, without the solver."""
    from bitplan.planner.verbs.choose import verify as workflow_verify

    found = workflow_verify(plan, profile, **rest)
    for failure in found.failures:
        click.echo(f"bitplan: {plan}: {failure}", err=True)
    return Printed(found, "" if found.failures else None, code=BAD_INPUT if found.failures else 0)


@click.command()
@click.argument("plan", type=FILE)
@click.argument("profile", type=FILE)
@click.argument("layer", shell_complete=completing.layers)
@_time_limit("each scheme")
@_GAP
@_BACKEND
@telling
def why(plan: Path, profile: Path, layer: str, **rest: Any) -> Printed:
    """What every other scheme of LAYER would cost in PLAN, by its PROFILE."""
    from bitplan.planner.verbs.choose import why as workflow_why

    return Printed(workflow_why(plan, profile, layer, **rest), None)


@click.command()
@click.argument("plan", type=FILE)
@click.argument("profile", type=FILE)
@telling
def predict(plan: Path, profile: Path) -> Printed:
    """What PLAN does as a whole: its layers' losses added up, and with their interactions."""
    from bitplan.planner.choice.joint import prediction_text
    from bitplan.planner.verbs.choose import predict as workflow_predict

    found = workflow_predict(plan, profile)
    return Printed({"metrics": list(found.values())}, lambda: prediction_text(found))


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="bitplan")
def main() -> None:
    """Plan, layer by layer, how to quantize a diffusion model: profile, solve, apply, evaluate."""


@main.command()
@click.argument("pipeline")
@click.option("--out", type=FILE, required=True, help="The profile; an unfinished one is continued.")
@judged
@click.option("--count", type=click.IntRange(1), default=8, show_default=True, help="How many built-in prompts.")
@click.option("--schemes", shell_complete=completing.schemes,
              help="Comma-separated schemes to measure, such as w8a8,w4g64ma8 [a default set].")  # fmt: skip
@click.option("--components", default="", help="Comma-separated components to plan [the denoiser].")
@click.option("--timesteps", type=click.IntRange(1), default=4, show_default=True,
              help="Denoiser calls that are judged by their own output.")  # fmt: skip
@click.option("--method", type=click.Choice(list(METHODS)), default="probes", show_default=True,
              help="probes: all from a few backward passes, some checked; exhaustive: a run for each.")  # fmt: skip
@click.option("--probes", type=click.IntRange(1), default=4, show_default=True, help="Probes of each image metric.")
@click.option("--checks", type=click.IntRange(0), help="Estimates measured exhaustively, too [16; 0 in bfloat16].")
@click.option("--time", metavar="TIME", help="Spend so long, such as 10m, where plans are still undecided.")
@click.option("--around", metavar="MEMORY", default="25%", show_default=True, help="For --time: the plans' memory.")
@generation(seed=0)
@click.option("--dtype", type=click.Choice(DTYPES), default=DTYPES[0], show_default=True,
              help="Of the pipeline. bfloat16: half the memory, probes alone.")  # fmt: skip
@ENGINE
@click.option("--part", metavar="K/N", help="Measure the K-th of N shares of the layers, to be merged.")
@OFFLOAD
@THREADS
@telling
def profile(
    pipeline: str, out: Path, schemes: str | None, components: str, threads: int | None, **rest: Any
) -> Printed:
    """Measure what each scheme does to each layer of PIPELINE: `scenes`, a diffusers folder, a hub id, or
    package.module:name of a bitplan.Subject."""
    set_threads(threads)
    from bitplan.planner.verbs.look import inspect
    from bitplan.planner.verbs.measure import profile as workflow_profile
    from bitplan.planner.verbs.parameters import DEFAULT_SCHEMES

    chosen = tuple(schemes.split(",")) if schemes else DEFAULT_SCHEMES
    names = tuple(filter(None, components.split(",")))
    rest["call"] = called(rest["call"])
    workflow_profile(pipeline, out, schemes=chosen, components=names, **rest)
    then = f"bitplan solve {out} --memory 30% --out P.plan.yaml"
    return Printed(lambda: inspect(out), wrote=[out], then=then)


for _command in (solve, sweep, explore):
    main.add_command(_command)


for _command in (verify, why, predict):
    main.add_command(_command)


for _command in (inspect, cost, completing.completion):
    main.add_command(_command)


@main.command()
@click.argument("plan", type=FILE)
@click.argument("pipeline")
@click.option("--prompt", multiple=True, help="What to paint; may be given again [a built-in prompt].")
@click.option("--count", type=click.IntRange(1), default=1, show_default=True, help="How many built-in prompts.")
@click.option("--out", type=FILE, required=True, help="The picture; .gif for video, .npy for numbers.")
@PROMPTS
@CALL
@KERNELS
@MISMATCH
@generation(seed=0)
@THREADS
@telling
def apply(plan: Path, pipeline: str, prompt: tuple[str, ...], out: Path, threads: int | None, **rest: Any) -> Printed:
    """Run PIPELINE with the plan's layers and paint."""
    set_threads(threads)
    from bitplan.planner.verbs.use import paint

    rest["call"] = called(rest["call"])
    return Printed(wrote=paint(plan, pipeline, prompt, out, **rest))


@main.command()
@click.argument("plans", type=FILE, nargs=-1, required=True)
@click.argument("pipeline")
@click.option("--out", type=FILE, required=True, help="A folder for report.md, report.json and images.png.")
@judged
@click.option("--count", type=click.IntRange(2), default=64, show_default=True, help="How many built-in prompts.")
@click.option("--blocks/--no-blocks", default=True, show_default=True, help="Also each block of layers alone.")
@OFFLOAD
@KERNELS
@MISMATCH
@generation(seed=1000)
@THREADS
@telling
def evaluate(plans: tuple[Path, ...], pipeline: str, out: Path, threads: int | None, **rest: Any) -> Printed:
    """Predicted beside measured: PLANS on PIPELINE, on prompts that planning never saw."""
    set_threads(threads)
    from bitplan.planner.evaluation.report import is_drawn, to_json, to_markdown
    from bitplan.planner.verbs.use import evaluate as workflow_evaluate

    rest["call"] = called(rest["call"])
    found = workflow_evaluate(plans, pipeline, out, **rest)
    wrote = [out / name for name in ("report.md", "report.json", *(["images.png"] * is_drawn(found)))]
    return Printed(lambda: to_json(found), lambda: to_markdown(found), wrote=wrote)


@main.command()
@click.argument("runs", type=FILE, nargs=-1, required=True)
@click.option("--out", type=FILE, required=True, help="The page, one HTML file.")
@telling
def report(runs: tuple[Path, ...], out: Path) -> Printed:
    """A page that shows what the folders RUNS of `bitplan sweep` hold: the trade-off, the plans, their pictures and
    where the bits go. It is one file, and needs no network."""
    from bitplan.planner.verbs.look import report as workflow_report

    return Printed(wrote=[workflow_report(runs, out)], then="open it in a browser")


@main.command()
@click.argument("plan", type=FILE)
@click.argument("pipeline")
@click.option("--out", type=FILE, help="A JSON file.")
@click.option("--pairs", type=click.IntRange(1), default=11, show_default=True, help="Calls of each variant, in turn.")
@click.option("--against", type=click.Choice(BASELINES), multiple=True, default=BASELINES, show_default=True,
              help="A float type; may be given again.")  # fmt: skip
@click.option("--compiled", is_flag=True, help="Also everything by torch.compile, which takes minutes.")
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Prompts a call.")
@click.option("--guidance", type=float, help="Guidance scale [the pipeline's default].")
@MISMATCH
@THREADS
@telling
def bench(plan: Path, pipeline: str, out: Path | None, threads: int | None, **rest: Any) -> Printed:
    """Time one denoiser call of PIPELINE with the plan's kernels and without."""
    set_threads(threads)
    from bitplan.planner.evaluation.speed import to_json, to_text
    from bitplan.planner.verbs.use import bench as workflow_bench

    found = workflow_bench(plan, pipeline, out=out, **rest)
    return Printed(lambda: to_json(found), lambda: to_text(found), wrote=[out] if out else [])


@main.command()
@click.argument("profile", type=FILE)
@click.argument("pipeline")
@click.option("--sample", type=click.IntRange(1), default=24, show_default=True, help="(layer, scheme) to measure.")
@click.option("--tolerance", type=float, default=0.25, show_default=True,
              help="Share of extra loss that old plans may have.")  # fmt: skip
@click.option("--plan", type=FILE, help="Judge this plan of PROFILE alone.")
@PROMPTS
@click.option("--clip", help="Folder or hub id of the CLIPModel that measures alignment.")
@ENGINE
@click.option("--seed", type=int, default=0, show_default=True, help="Of the bootstrap.")
@click.option("--out", type=FILE, help="A JSON file for all of it.")
@OFFLOAD
@THREADS
@telling
def check(profile: Path, pipeline: str, out: Path | None, threads: int | None, **rest: Any) -> Printed:
    """Does PROFILE, of a base model, still hold for PIPELINE, a fine-tune of it? Exit code 0: it does; 1: it does
    not, or the sample cannot tell."""
    set_threads(threads)
    from bitplan.planner.verbs.measure import check as workflow_check

    found = workflow_check(profile, pipeline, out=out, **rest)
    return Printed(found, None, wrote=[out] if out else [], code=0 if found.holds else NO)


@main.command()
@click.argument("profiles", type=FILE, nargs=-1, required=True)
@click.option("--out", type=FILE, required=True, help="The profile, a new file.")
@click.option("--costs", type=FILE, help="The one of PROFILES whose costs to take, where several have some.")
@telling
def merge(profiles: tuple[Path, ...], out: Path, costs: Path | None) -> Printed:
    """Join PROFILES of one model that were measured apart, such as with `profile --part`."""
    from bitplan.planner.verbs.look import inspect
    from bitplan.planner.verbs.measure import merge as workflow_merge

    workflow_merge(profiles, out, costs=costs)
    return Printed(lambda: inspect(out), wrote=[out], then=f"bitplan inspect {out}")


@main.command("import")
@click.argument("format", shell_complete=completing.members("bitplan.planner.interop.foreign", "FORMATS"))
@click.argument("folder", type=FILE)
@click.option("--out", type=FILE, required=True, help="The profile.")
@telling
def import_profile(format: str, folder: Path, out: Path) -> Printed:
    """Make a profile of what another tool measured: FORMAT is mixdq, FOLDER holds its files."""
    from bitplan.planner.verbs.look import inspect
    from bitplan.planner.verbs.measure import import_profile as workflow_import_profile

    decided = workflow_import_profile(format, folder, out)
    then = f"bitplan solve {out} --bits 4 --out P.plan.yaml"
    return Printed(lambda: inspect(out), decided, wrote=[out], then=then)


@main.command()
@click.argument("plan", type=FILE)
@click.option("--to", required=True, metavar="TARGET",
              shell_complete=completing.members("bitplan.planner.interop.targets", "TARGETS"),
              help="torchao, sdnq, modelopt or gguf-recipe.")  # fmt: skip
@click.option("--out", type=FILE, required=True, help="The file; of several components, one each: -COMPONENT is added.")
@click.option("--model", metavar="PROFILE|PIPELINE|JSON",
              help="Where the layers' shapes are; JSON: a configuration [the plan's own pipeline].")  # fmt: skip
@click.option("--approximate", is_flag=True, help="Take the nearest that TARGET can express, and list the changes.")
@telling
def export(plan: Path, to: str, out: Path, **rest: Any) -> Printed:
    """Write PLAN as another tool's own configuration, refusing what that cannot express."""
    from bitplan.planner.verbs.use import export as workflow_export

    found = workflow_export(plan, to, out, **rest)
    text = "\n".join(map(str, found))
    return Printed({"files": found}, text, wrote=[each.path for each in found])


@main.command()
@telling
def doctor() -> Printed:
    """Which kernels, solvers, metrics and extras are available here, or why not."""
    from bitplan.planner.verbs.look import doctor as workflow_doctor

    return Printed(workflow_doctor(), None)


if __name__ == "__main__":
    main()
