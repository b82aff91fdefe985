"""The verbs that show what a profile, a plan or this machine holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bitplan.planner.errors import UserError
from bitplan.planner.files import PathLike
from bitplan.planner.verbs import parameters as arguments
from bitplan.planner.verbs.parameters import DEFAULT_SCHEMES

if TYPE_CHECKING:
    from bitplan.planner.views.equipment import Equipment
    from bitplan.planner.views.inspect import Inspection


def inspect(
    file: PathLike | None = None, profile: PathLike | None = None, *, config: PathLike | None = None,
    schemes: Sequence[str] = DEFAULT_SCHEMES, components: Sequence[str] = (), width: int | None = None,
    height: int | None = None, frames: int | None = None, tokens: int | None = None, batch: int = 1,
) -> Inspection:  # fmt: skip
    """What a profile or a plan file holds; or, of a configuration alone: layers, parameters, multiply-adds, bytes.

    profile: of a plan, also tells what it gives to each role of layers.
    config: a component's config.json, or a pipeline's folder, where no weights need be; schemes: whose bytes to tell;
    components: of a pipeline; width, height (px), frames, tokens (of text), batch: of the one call whose multiply-adds
    are counted. `str` of what is returned is the text, `facts` are the numbers.
    """
    from bitplan.planner.views.inspect import inspect_file

    if (file is None) == (config is None):
        raise UserError("inspect takes a profile or a plan, or else --config; give one of them")
    if file is not None:
        return inspect_file(Path(file), None if profile is None else Path(profile))
    from bitplan.planner.outlines.outline import Size
    from bitplan.planner.views.inspect import inspect_config

    size = Size(width, height, frames, tokens, batch)
    return inspect_config(str(config), components, size, schemes)


def doctor() -> Equipment:
    """Which kernels, solvers, metrics and extras are available here, or why not: `str` is a table."""
    from bitplan.planner.views.equipment import equipment

    return equipment()


def explore(
    profile: PathLike, *, plans: PathLike | None = None, pipeline: str | None = None, port: int = 0,
    open: bool = False, kernels: str = "int", steps: int | None = None, guidance: float | None = None,
) -> None:  # fmt: skip
    """Serve a page on this machine alone, with the solver behind it, until interrupted; its address is printed.

    plans: the folder where the page saves plans, else the profile's own; pipeline: what the page paints with, else what
    the profile was measured on, and as it was; port: 0 for any that is free; open: also in a browser; kernels: as in
    `solve`. Raises UserError.
    """
    from bitplan.planner.page.painter import PaintOptions
    from bitplan.planner.page.serve import serve

    arguments.check_kernels(kernels)
    options = PaintOptions(pipeline, steps, guidance, kernels)
    serve(Path(profile), None if plans is None else Path(plans), options, port, open)


def report(runs: Sequence[PathLike], out: PathLike) -> Path:
    """The page `out`, one HTML file that needs no network, of the folders that `sweep` wrote: the trade-off, the plans
    and their pictures, and the model as a map of its layers. Raises UserError."""
    from bitplan.planner.page.html import write_report

    write_report([Path(folder) for folder in runs], Path(out))
    return Path(out)
