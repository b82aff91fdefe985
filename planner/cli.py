"""The command `bitplan`: one sub-command a verb. Heavy imports wait until a verb runs."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from planner.errors import BAD_INPUT, INFEASIBLE, InfeasibleError

_FILE = click.Path(path_type=Path)


def _guarded(verb: Callable[..., None]) -> Callable[..., None]:
    """Bad input becomes one line and an exit code, never a traceback; an interrupt keeps what is done."""

    @functools.wraps(verb)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            verb(*args, **kwargs)
        except InfeasibleError as error:
            _stop(error, INFEASIBLE)
        except ValueError as error:  # every room's errors are ValueErrors
            _stop(error, BAD_INPUT)
        except OSError as error:
            _stop(f"{error.filename}: {error.strerror}; check the path, its permissions and the disk", BAD_INPUT)
        except KeyboardInterrupt:
            click.echo("interrupted; what was measured is kept, and the same command goes on from there", err=True)
            sys.exit(130)

    return run


def _stop(error: Exception | str, code: int) -> None:
    click.echo("bitplan: " + " ".join(str(error).split()), err=True)
    sys.exit(code)


def _options(*options: Callable[..., Any]) -> Callable[..., Any]:
    return lambda verb: functools.reduce(lambda inner, option: option(inner), reversed(options), verb)


def _generation(seed: int) -> Callable[..., Any]:
    return _options(
        click.option("--steps", type=int, help="Denoising steps an image [the pipeline's default]."),
        click.option("--guidance", type=float, help="Guidance scale [the pipeline's default]."),
        click.option("--seed", type=int, default=seed, show_default=True, help="Prompt i's noise is of seed + i."),
    )


_KERNELS = click.option(
    "--kernels", type=click.Choice(["int", "fake"]), default="int", show_default=True,
    help="int: only schemes that a real kernel runs here; fake: simulate, any scheme.",
)  # fmt: skip
_MISMATCH = click.option("--allow-mismatch", is_flag=True, help="Take a plan of another model with the same layers.")
_THREADS = click.option("--threads", type=click.IntRange(1), help="CPU threads for torch [all].")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="bitplan")
def main() -> None:
    """Plan, layer by layer, how to quantize a diffusion model: profile, solve, apply, evaluate."""


@main.command()
@click.argument("pipeline")
@click.option("--out", type=_FILE, required=True, help="The profile; an unfinished one is continued.")
@click.option("--prompts", type=_FILE, help="A file with one prompt a line [a built-in list].")
@click.option("--count", type=click.IntRange(1), default=8, show_default=True, help="How many built-in prompts.")
@click.option("--schemes", help="Comma-separated schemes to measure, such as w8a8,w4g64ma8 [a default set].")
@click.option("--components", default="", help="Comma-separated components to plan [the denoiser].")
@click.option("--clip", help="Folder or hub id of the CLIPModel that measures alignment.")
@click.option("--timesteps", type=click.IntRange(1), default=4, show_default=True, help="Denoiser calls a measurement.")
@_generation(seed=0)
@_THREADS
@_guarded
def profile(pipeline: str, out: Path, schemes: str | None, components: str, threads: int | None, **rest: Any) -> None:
    """Measure what each scheme does to each layer of PIPELINE: `scenes`, a diffusers folder or a hub id."""
    _set_threads(threads)
    from planner import workflow

    chosen = tuple(schemes.split(",")) if schemes else workflow.DEFAULT_SCHEMES
    workflow.profile(pipeline, out, schemes=chosen, components=tuple(filter(None, components.split(","))), **rest)
    click.echo(f"wrote {out}; next: bitplan solve {out} --memory 30% --out P.plan.yaml")


@main.command()
@click.argument("profile", type=_FILE)
@click.option("--out", type=_FILE, required=True, help="The plan file.")
@click.option("--memory", help="Budget on weights: 35% of full precision, 900MiB, 1.2GB.")
@click.option("--latency", help="Budget on the layers' time an image: 80% of full precision, 120ms.")
@click.option("--bits", type=float, help="Budget on mean bits a weight, scales included.")
@click.option("--cap", "caps", multiple=True, metavar="COLUMN=MOST",
              help="Bound a loss (nsr, dssim, clip_drop, embed_drift, quality, alignment) by a number or a scheme: "
                   "alignment=w8a8.")  # fmt: skip
@click.option("--objective", default="both", show_default=True, help="quality, alignment, both, or quality=1,nsr=0.5.")
@click.option("--uniform", metavar="SCHEME", help="Take this scheme everywhere instead of solving.")
@click.option("--pin", "pins", multiple=True, metavar="LAYER=SCHEME", help="Fix a layer's scheme.")
@_KERNELS
@click.option("--time-limit", type=float, default=60.0, show_default=True, help="Seconds for the solver.")
@click.option("--solver", help="highs or cbc [the first that is there].")
@_guarded
def solve(profile: Path, out: Path, caps: tuple[str, ...], pins: tuple[str, ...], **rest: Any) -> None:
    """Choose the best scheme of every layer of PROFILE within budgets."""
    from planner import workflow
    from planner.inspecting import plan_text

    plan = workflow.solve(profile, out, caps=_pairs(caps, "--cap"), pins=_pairs(pins, "--pin"), **rest)
    click.echo(plan_text(plan))
    click.echo(f"wrote {out}; next: bitplan apply {out} {plan.model['name']} --prompt '...' --out img.png")


@main.command()
@click.argument("plan", type=_FILE)
@click.argument("pipeline")
@click.option("--prompt", multiple=True, required=True, help="What to paint; may be given again.")
@click.option("--out", type=_FILE, required=True, help="The picture.")
@_KERNELS
@_MISMATCH
@_generation(seed=0)
@_THREADS
@_guarded
def apply(plan: Path, pipeline: str, prompt: tuple[str, ...], out: Path, threads: int | None, **rest: Any) -> None:
    """Run PIPELINE with the plan's layers and paint."""
    _set_threads(threads)
    from planner import workflow

    for path in workflow.paint(plan, pipeline, prompt, out, **rest):
        click.echo(f"wrote {path}")


@main.command()
@click.argument("plans", type=_FILE, nargs=-1, required=True)
@click.argument("pipeline")
@click.option("--out", type=_FILE, required=True, help="A folder for report.md, report.json and images.png.")
@click.option("--prompts", type=_FILE, help="A file with one prompt a line [held-out ones].")
@click.option("--count", type=click.IntRange(2), default=64, show_default=True, help="How many built-in prompts.")
@click.option("--blocks/--no-blocks", default=True, show_default=True, help="Also each block of layers alone.")
@click.option("--clip", help="Folder or hub id of the CLIPModel that measures alignment.")
@_KERNELS
@_MISMATCH
@_generation(seed=1000)
@_THREADS
@_guarded
def evaluate(plans: tuple[Path, ...], pipeline: str, out: Path, threads: int | None, **rest: Any) -> None:
    """Predicted beside measured: PLANS on PIPELINE, on prompts that planning never saw."""
    _set_threads(threads)
    from planner import report, workflow

    click.echo(report.to_markdown(workflow.evaluate(plans, pipeline, out, **rest)))
    click.echo(f"wrote {out}/report.md, {out}/report.json and {out}/images.png")


@main.command()
@click.argument("file", type=_FILE)
@_guarded
def inspect(file: Path) -> None:
    """What a profile or a plan file holds."""
    from planner import workflow

    click.echo(workflow.inspect(file))


@main.command()
@_guarded
def doctor() -> None:
    """Which kernels, solvers, metrics and extras are available here, or why not."""
    from planner import workflow

    click.echo(workflow.doctor())


def _pairs(texts: tuple[str, ...], option: str) -> dict[str, str]:
    """NAME=VALUE texts as a dictionary."""
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise ValueError(f"{option} {text!r} is no NAME=VALUE; write for example alignment=w8a8")
        if name in pairs:
            raise ValueError(f"{option} {name} is given twice, as {pairs[name]} and {value}; give it once")
        pairs[name] = value
    return pairs


def _set_threads(threads: int | None) -> None:
    if threads:
        import torch

        torch.set_num_threads(threads)


if __name__ == "__main__":
    main()
