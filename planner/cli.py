"""The command `bitplan`: one sub-command a verb. Heavy imports wait until a verb runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from planner import cli_meta, cli_solve, completing
from planner.arguments import BASELINES, DTYPES
from planner.cli_options import (
    CALL,
    ENGINE,
    FILE,
    KERNELS,
    MISMATCH,
    OFFLOAD,
    PROMPTS,
    THREADS,
    Said,
    called,
    generation,
    judged,
    set_threads,
    telling,
)  # fmt: skip
from planner.errors import NO
from planner.methods import METHODS


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
def profile(pipeline: str, out: Path, schemes: str | None, components: str, threads: int | None, **rest: Any) -> Said:
    """Measure what each scheme does to each layer of PIPELINE: `scenes`, a diffusers folder, a hub id, or
    package.module:name of a planner.Subject."""
    set_threads(threads)
    from planner import workflow

    chosen = tuple(schemes.split(",")) if schemes else workflow.DEFAULT_SCHEMES
    names = tuple(filter(None, components.split(",")))
    rest["call"] = called(rest["call"])
    workflow.profile(pipeline, out, schemes=chosen, components=names, **rest)
    then = f"bitplan solve {out} --memory 30% --out P.plan.yaml"
    return Said(lambda: workflow.inspect(out), wrote=[out], then=then)


for _command in (cli_solve.solve, cli_solve.sweep, cli_solve.explore):
    main.add_command(_command)
for _command in (cli_solve.verify, cli_solve.why, cli_solve.predict):
    main.add_command(_command)
for _command in (cli_meta.inspect, cli_meta.cost, completing.completion):
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
def apply(plan: Path, pipeline: str, prompt: tuple[str, ...], out: Path, threads: int | None, **rest: Any) -> Said:
    """Run PIPELINE with the plan's layers and paint."""
    set_threads(threads)
    from planner import workflow

    rest["call"] = called(rest["call"])
    return Said(wrote=workflow.paint(plan, pipeline, prompt, out, **rest))


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
def evaluate(plans: tuple[Path, ...], pipeline: str, out: Path, threads: int | None, **rest: Any) -> Said:
    """Predicted beside measured: PLANS on PIPELINE, on prompts that planning never saw."""
    set_threads(threads)
    from planner import evaluation_report, workflow

    rest["call"] = called(rest["call"])
    found = workflow.evaluate(plans, pipeline, out, **rest)
    wrote = [out / name for name in ("report.md", "report.json", *(["images.png"] * evaluation_report.is_drawn(found)))]
    return Said(lambda: evaluation_report.to_json(found), lambda: evaluation_report.to_markdown(found), wrote=wrote)


@main.command()
@click.argument("runs", type=FILE, nargs=-1, required=True)
@click.option("--out", type=FILE, required=True, help="The page, one HTML file.")
@telling
def report(runs: tuple[Path, ...], out: Path) -> Said:
    """A page that shows what the folders RUNS of `bitplan sweep` hold: the trade-off, the plans, their pictures and
    where the bits go. It is one file, and needs no network."""
    from planner import workflow

    return Said(wrote=[workflow.report(runs, out)], then="open it in a browser")


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
def bench(plan: Path, pipeline: str, out: Path | None, threads: int | None, **rest: Any) -> Said:
    """Time one denoiser call of PIPELINE with the plan's kernels and without."""
    set_threads(threads)
    from planner import benching, workflow

    found = workflow.bench(plan, pipeline, out=out, **rest)
    return Said(lambda: benching.to_json(found), lambda: benching.to_text(found), wrote=[out] if out else [])


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
def check(profile: Path, pipeline: str, out: Path | None, threads: int | None, **rest: Any) -> Said:
    """Does PROFILE, of a base model, still hold for PIPELINE, a fine-tune of it? Exit code 0: it does; 1: it does
    not, or the sample cannot tell."""
    set_threads(threads)
    from planner import workflow

    found = workflow.check(profile, pipeline, out=out, **rest)
    return Said(found, None, wrote=[out] if out else [], code=0 if found.holds else NO)


@main.command()
@click.argument("profiles", type=FILE, nargs=-1, required=True)
@click.option("--out", type=FILE, required=True, help="The profile, a new file.")
@click.option("--costs", type=FILE, help="The one of PROFILES whose costs to take, where several have some.")
@telling
def merge(profiles: tuple[Path, ...], out: Path, costs: Path | None) -> Said:
    """Join PROFILES of one model that were measured apart, such as with `profile --part`."""
    from planner import workflow

    workflow.merge(profiles, out, costs=costs)
    return Said(lambda: workflow.inspect(out), wrote=[out], then=f"bitplan inspect {out}")


@main.command("import")
@click.argument("format", shell_complete=completing.members("planner.foreign", "FORMATS"))
@click.argument("folder", type=FILE)
@click.option("--out", type=FILE, required=True, help="The profile.")
@telling
def import_profile(format: str, folder: Path, out: Path) -> Said:
    """Make a profile of what another tool measured: FORMAT is mixdq, FOLDER holds its files."""
    from planner import workflow

    decided = workflow.import_profile(format, folder, out)
    then = f"bitplan solve {out} --bits 4 --out P.plan.yaml"
    return Said(lambda: workflow.inspect(out), decided, wrote=[out], then=then)


@main.command()
@click.argument("plan", type=FILE)
@click.option("--to", required=True, metavar="TARGET", shell_complete=completing.members("planner.targets", "TARGETS"),
              help="torchao, sdnq, modelopt or gguf-recipe.")  # fmt: skip
@click.option("--out", type=FILE, required=True, help="The file; of several components, one each: -COMPONENT is added.")
@click.option("--model", metavar="PROFILE|PIPELINE|JSON",
              help="Where the layers' shapes are; JSON: a configuration [the plan's own pipeline].")  # fmt: skip
@click.option("--approximate", is_flag=True, help="Take the nearest that TARGET can express, and list the changes.")
@telling
def export(plan: Path, to: str, out: Path, **rest: Any) -> Said:
    """Write PLAN as another tool's own configuration, refusing what that cannot express."""
    from planner import workflow

    found = workflow.export(plan, to, out, **rest)
    text = "\n".join(map(str, found))
    return Said({"files": found}, text, wrote=[each.path for each in found])


@main.command()
@telling
def doctor() -> Said:
    """Which kernels, solvers, metrics and extras are available here, or why not."""
    from planner import workflow

    return Said(workflow.doctor(), None)


if __name__ == "__main__":
    main()
