"""The verbs that write profiles: measure, merge, import, re-time, and check against a fine-tune."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitplan.planner.choice.published import plan_in
from bitplan.planner.files import PathLike
from bitplan.planner.pipelines.conditions import conditions_in
from bitplan.planner.progress import course_of
from bitplan.planner.verbs import parameters as arguments
from bitplan.planner.verbs.parameters import DEFAULT_SCHEMES
from bitplan.plans.dtypes import FLOAT32

if TYPE_CHECKING:
    from bitplan.planner.finetunes.verdict import Check
    from bitplan.planner.pipelines.subject import Subject
    from bitplan.plans.plan import Plan


@course_of("profile")
def profile(
    pipeline: str | Subject, out: PathLike, *,
    prompts: PathLike | Sequence[Any] | None = None, count: int = 8, schemes: Sequence[str] = DEFAULT_SCHEMES,
    components: Sequence[str] = (), clip: str | None = None, timesteps: int = 4, steps: int | None = None,
    guidance: float | None = None, seed: int = 0, method: str = "probes", probes: int = 4, checks: int | None = None,
    time: str | None = None, around: str = "25%", engine: str = "local", address: str | None = None,
    workers: int | None = None, part: str | None = None, dtype: str = FLOAT32,
    call: Mapping[str, Any] | None = None, metrics: Sequence[str] = (), offload_folder: PathLike | None = None,
) -> Path:  # fmt: skip
    """Measure what each scheme does to each layer of `pipeline`, into the file `out`; goes on where one stopped.

    pipeline: `scenes`, a folder, a hub id, `package.module:name` of a `Subject`, or a Subject; prompts: a file with one
    a line or a YAML list of what the pipeline's call takes, or such a list, else `count` built-in ones; timesteps:
    calls of each denoiser judged by their own output; clip: the CLIPModel that measures alignment; call: what else the
    pipeline's call is given, such as its height; metrics: more of them, built-in ones or `package.module:name`.
    method: a name of `bitplan.planner.measurement.methods.METHODS`; probes: of each metric of the image; checks: how
    many estimates are
    measured exhaustively, too; time: `10m`, spent where a plan of the memory `around` is undecided.
    engine: a name of `bitplan.planner.measurement.engines.ENGINES`; address, workers: of its cluster; part: `2/3`
    measures the second third
    alone, for `merge`; dtype: of the pipeline, `float32` or `bfloat16`, which takes half the memory; offload_folder: on
    a disk, where weights that are converted lie instead of in memory.
    """
    from bitplan.planner.measurement.engines import Cluster
    from bitplan.planner.measurement.run import MeasureOptions, check_options, run_profile
    from bitplan.planner.measurement.worker import Settings
    from bitplan.planner.pipelines.conditions import labels_of
    from bitplan.planner.pipelines.sources import generation_of, load_subject
    from bitplan.planner.pipelines.subject import conditions_of, holding
    from bitplan.planner.pipelines.traced import examine

    generation = generation_of(pipeline, steps, guidance, seed, call)
    site, share, checks = Cluster(address, workers), arguments.part_of(part), arguments.checks_of(checks, dtype)
    way = MeasureOptions(method, engine, site, share, checks, arguments.seconds_of(time), around, offload_folder)
    check_options(schemes, dtype, Path(out), way)
    given = conditions_in(prompts)
    subject = load_subject(pipeline, generation, dtype, offload_folder)
    chosen = conditions_of(subject, given, count)
    settings = Settings(
        subject.name, labels_of(chosen), tuple(schemes), generation, timesteps, probes, tuple(components), clip, dtype,
        tuple(metrics),
    )  # fmt: skip
    run_profile(examine(holding(subject, chosen), chosen, seed, components), settings, Path(out), way)
    return Path(out)


def merge(profiles: Sequence[PathLike], out: PathLike, *, costs: PathLike | None = None) -> Path:
    """Join profiles that were measured apart, such as by `profile(..., part=)`, into the new file `out`.

    costs: whose costs to take, where several have some that differ. Raises UserError where they do not belong together.
    """
    from bitplan.planner.profiles.merge import merge as merging_merge

    merging_merge([Path(path) for path in profiles], Path(out), None if costs is None else Path(costs))
    return Path(out)


def import_profile(format: str, folder: PathLike, out: PathLike) -> str:
    """Make the profile `out` of what another tool measured; a line on what had to be decided is returned.

    format: a name of `bitplan.planner.interop.foreign.FORMATS`, such as `mixdq`; folder: where its files lie.
    """
    from bitplan.planner.interop.foreign import import_folder

    return import_folder(format, Path(folder), Path(out))


def cost(
    profile: PathLike, out: PathLike, *, config: PathLike | None = None, width: int | None = None,
    height: int | None = None, frames: int | None = None, tokens: int | None = None, batch: int = 1,
) -> Path:  # fmt: skip
    """The profile `out`: `profile`, made elsewhere, with the costs of this machine, timed a layer at a time.

    config: as in `inspect`, where the layers' shapes and calls come from, at the size that the rest says; else they are
    the profile's own. The model is neither needed nor built. Raises UserError where they are of different models.
    """
    from bitplan.planner.outlines.outline import Size
    from bitplan.planner.outlines.retime import retime

    size = Size(width, height, frames, tokens, batch)
    retime(Path(profile), Path(out), None if config is None else str(config), size)
    return Path(out)


def check(
    profile: PathLike, pipeline: str | Subject, *, sample: int = 24, tolerance: float = 0.25,
    plan: Plan | PathLike | None = None, prompts: PathLike | Sequence[Any] | None = None, clip: str | None = None,
    engine: str = "local", address: str | None = None, workers: int | None = None, seed: int = 0,
    out: PathLike | None = None, offload_folder: PathLike | None = None,
) -> Check:  # fmt: skip
    """Whether the profile of a base model is still good for a fine-tune of it: `sample` (layer, scheme) are measured on
    `pipeline` as the profile was, and compared.

    tolerance: by which share the old plans' losses may be above the best of the same bytes; plan: judge the choices of
    this plan of the profile alone; prompts: those that the profile was measured on, where it holds only digests of
    them and the pipeline does not bring them; clip, engine, address, workers, offload_folder: as in `profile`; seed: of
    the bootstrap; out: a JSON file for all of it. Raises UserError for a pipeline of other layers, PlanError.
    """
    from bitplan.planner.finetunes.check import CheckOptions, check_profile
    from bitplan.planner.measurement.engines import Cluster
    from bitplan.planner.profiles.profile import open_profile

    arguments.check_sample(sample, tolerance, out)
    judged, given = None if plan is None else plan_in(plan), conditions_in(prompts)
    site = Cluster(address, workers)
    asked = CheckOptions(sample, tolerance, judged, clip, seed, given, engine, site, offload_folder)
    with open_profile(profile) as store:
        found = check_profile(store, pipeline, asked)
    if out is not None:
        Path(out).write_text(json.dumps(found.to_json(), indent=1) + "\n", "utf-8")
    return found
