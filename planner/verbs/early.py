"""Checks of single values before a verb begins: they need neither torch nor the network, so that a misspelt name is
refused before anything slow. Each raises an error of BitPlan's own, and does not look at objects of Python."""

from __future__ import annotations

import math
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bitplan.planner.errors import UserError
from bitplan.planner.pipelines.places import check_options, check_place, is_folder
from bitplan.planner.pipelines.references import is_reference
from bitplan.planner.texts import nearest


def scheme(text: Any) -> None:
    """A scheme."""
    from bitplan.plans.scheme import parse_scheme

    if isinstance(text, str):
        parse_scheme(text)


def schemes(texts: Iterable[Any]) -> None:
    """Several schemes."""
    for text in texts:
        scheme(text)


def pins(values: Mapping[str, Any]) -> None:
    """Layer -> scheme."""
    schemes(values.values())


def caps(values: Mapping[str, Any]) -> None:
    """Loss -> a number or a scheme."""
    for value in values.values():
        try:
            float(value)
        except (TypeError, ValueError):
            scheme(value)


def metrics(names: Iterable[Any]) -> None:
    """Names of built-in metrics, or references to others."""
    from bitplan.sensitivity.metrics import metric_named
    from bitplan.sensitivity.table import MeasurementError

    for name in names:
        if isinstance(name, str) and not is_reference(name):
            try:
                metric_named(name)
            except MeasurementError as error:
                raise UserError(f"{error}; one of your own is written package.module:name") from None


def solver(name: Any) -> None:
    """A way to solve."""
    from bitplan.solvers.strategies import strategy_named

    strategy_named(name)


def backend(name: Any) -> None:
    """A backend of the solver."""
    from bitplan.solvers.programs.backends import BACKENDS

    known = [each.name for each in BACKENDS]
    if name not in known:
        raise UserError(f"there is no backend {name!r}{nearest(str(name), known)} (backends: {', '.join(known)})")


def target(name: Any) -> None:
    """A tool that plans are exported to."""
    from bitplan.planner.targets import target_named

    target_named(name)


def source(name: Any) -> None:
    """A tool whose measurements are imported."""
    from bitplan.planner.interop.foreign import format_named

    format_named(name)


def pipeline(name: Any) -> None:
    """A pipeline: `scenes`, a folder, a hub id, a reference."""
    check_place(name)


def rerank(name: Any) -> None:
    """A pipeline, or joint."""
    from bitplan.planner.choice.ranking import JOINT

    if name != JOINT:
        check_place(name)


def clip(name: Any) -> None:
    """A folder or hub id of a CLIPModel."""
    if (
        isinstance(name, (str, Path))
        and not is_folder(str(name))
        and (str(name).count("/") != 1 or str(name)[0] in "./~")
    ):
        raise UserError(f"there is no folder {name} of a CLIP model; give --clip a folder, or a hub id, which is "
                        "OWNER/NAME")  # fmt: skip


def call(values: Mapping[str, Any]) -> None:
    """Further arguments of a pipeline's call."""
    check_options(values)


def prompts(source: Any) -> None:
    """A file of prompts or conditions. A pipe is read once, when it is needed."""
    from bitplan.planner.pipelines.conditions import conditions_in

    if isinstance(source, (str, Path)) and not _is_stream(Path(source)):
        conditions_in(source)


def part(text: Any) -> None:
    """A share of the layers."""
    from bitplan.planner.verbs.checks import part_of

    part_of(text)


def time(text: Any) -> None:
    """A time."""
    from bitplan.planner.verbs.checks import seconds_of

    seconds_of(text)


def memory(text: Any) -> None:
    """An amount of memory, of any whole."""
    from bitplan.planner.units import parse_bytes

    parse_bytes(text, 2**53)


def steps(number: Any) -> None:
    """A number of denoising steps."""
    if number < 1:
        raise UserError(f"--steps is {number}; give at least 1")


def guidance(number: Any) -> None:
    """A guidance scale."""
    if not math.isfinite(number):
        raise UserError(f"--guidance {number} is not finite; give a number, such as 7.5")


def profile(path: Any) -> None:
    """The file of a profile that exists."""
    from bitplan.planner.profiles.file import check_present

    check_present(path)


def profiles(paths: Iterable[Any]) -> None:
    """Several profiles."""
    for path in paths:
        profile(path)


def plan(name: Any) -> None:
    """The file of a plan that exists, or the name of a published plan."""
    from bitplan.planner.choice.published import check_present

    check_present(name)


def plans(names: Iterable[Any]) -> None:
    """Several plans."""
    for name in names:
        plan(name)


def _is_stream(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # told where it is read
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)
