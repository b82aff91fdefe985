"""The verbs that show what a profile, a plan or this machine holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bitplan.planner.choice.request import KERNELS, check_kernels
from bitplan.planner.errors import UserError
from bitplan.planner.files import PathLike
from bitplan.planner.pipelines.places import is_pipeline
from bitplan.planner.verbs.parameters import DEFAULT_SCHEMES

if TYPE_CHECKING:
    from bitplan.planner.views.equipment import Equipment
    from bitplan.planner.views.inspect import Inspection


def inspect(
    file: PathLike | None = None, profile: PathLike | None = None, *, config: PathLike | None = None,
    schemes: Sequence[str] = DEFAULT_SCHEMES, components: Sequence[str] = (), width: int | None = None,
    height: int | None = None, frames: int | None = None, tokens: int | None = None, batch: int = 1,
) -> Inspection:  # fmt: skip
    """Show what a profile or a plan file holds, or what the configuration of a pipeline or a component tells, without
    its weights: layers, parameters, multiply-adds, bytes, and what is planned by default. `str` of the result is the
    text, `facts` are the numbers.

    Args:
        file: a profile, a plan, or a pipeline: `scenes`, a folder or a hub id; None where `config` is given.
        profile: the plan's profile, to show what each role of layers gets.
        config: a component's config.json, or a pipeline's folder; no weights are needed.
        schemes: schemes to count the bytes of, for `config`.
        components: components of a pipeline, for `config`; empty for all that are modules.
        width: width of a picture in px, for the call of `config` whose multiply-adds are counted.
        height: height of a picture in px, likewise.
        frames: frames of a video, likewise.
        tokens: tokens of text, likewise.
        batch: samples of that call.

    Raises UserError.
    """
    from bitplan.planner.views.inspect import inspect_file

    if (file is None) == (config is None):
        raise UserError("inspect takes a profile, a plan or a pipeline, or else --config; give one of them")
    if file is not None and is_pipeline(str(file)):
        if profile is not None:
            raise UserError(f"{file} is a pipeline; --profile goes with a plan")
        file, config = None, file
    if file is not None:
        return inspect_file(Path(file), None if profile is None else Path(profile))
    from bitplan.planner.outlines.outline import Size
    from bitplan.planner.views.inspect import inspect_config

    size = Size(width, height, frames, tokens, batch)
    return inspect_config(str(config), components, size, schemes)


def doctor() -> Equipment:
    """List the kernels, solvers, metrics and extras that are available here, and why others are not. `str` of the
    result is a table."""
    from bitplan.planner.views.equipment import equipment

    return equipment()


def explore(
    profile: PathLike, *, plans: PathLike | None = None, pipeline: str | None = None, port: int = 0,
    open: bool = False, kernels: str = KERNELS[0], target: str | None = None, steps: int | None = None,
    guidance: float | None = None, variant: str | None = None, trust: bool = False,
) -> None:  # fmt: skip
    """Serve a page on this machine alone, with the solver behind it, until interrupted. Its address is printed.

    Args:
        profile: the profile's file.
        plans: the folder where the page saves plans; None for the profile's own.
        pipeline: the pipeline that paints; None for the one that the profile was measured on, called as it was then.
        port: port of 127.0.0.1; 0 for any free port.
        open: also open the page in a browser.
        kernels: as in `solve`.
        target: as in `solve`.
        steps: denoising steps of a picture; None for the profile's.
        guidance: guidance scale; None for the profile's.
        variant: variant of the weights' files; None for the one that was profiled.
        trust: also import and run the pipeline that the profile names as `package.module:name`.

    Raises UserError.
    """
    from bitplan.planner.page.painter import PaintOptions
    from bitplan.planner.page.serve import serve

    check_kernels(kernels)
    options = PaintOptions(pipeline, steps, guidance, kernels, trust=trust, variant=variant)
    serve(Path(profile), None if plans is None else Path(plans), options, port, open, target)


def report(runs: Sequence[PathLike], out: PathLike) -> Path:
    """Write a page, one HTML file that needs no network, that shows sweeps: the trade-off, the plans and their
    pictures, and the model as a map of its layers.

    Args:
        runs: folders that `sweep` wrote.
        out: the page.

    Returns the path of the page. Raises UserError.
    """
    from bitplan.planner.page.html import write_report

    write_report([Path(folder) for folder in runs], Path(out))
    return Path(out)
