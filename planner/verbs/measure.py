"""The verbs that write profiles: measure, merge, import, time again, and check against a fine-tune."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitplan.planner.files import PathLike, write_json
from bitplan.planner.progress import course_of
from bitplan.planner.targets import schemes_for
from bitplan.planner.verbs import checks as checking
from bitplan.planner.verbs.parameters import DEFAULT_SCHEMES
from bitplan.plans.dtypes import FLOAT32

if TYPE_CHECKING:
    from bitplan.planner.finetunes.verdict import Check
    from bitplan.planner.measurement.estimate import Estimate
    from bitplan.planner.pipelines.subject import Subject
    from bitplan.plans.plan import Plan


@course_of("profile")
def profile(
    pipeline: str | Subject, out: PathLike | None = None, *,
    prompts: PathLike | Sequence[Any] | None = None, count: int = 8, schemes: Sequence[str] | None = None,
    components: Sequence[str] = (), clip: str | None = None, timesteps: int = 4, steps: int | None = None,
    guidance: float | None = None, seed: int = 0, method: str = "probes", probes: int = 4, checks: int | None = None,
    time: str | None = None, around: str = "25%", engine: str = "local", address: str | None = None,
    workers: int | None = None, part: str | None = None, dtype: str = FLOAT32,
    call: Mapping[str, Any] | None = None, metrics: Sequence[str] = (), offload_folder: PathLike | None = None,
    variant: str | None = None, target: str | None = None, estimate: bool = False,
) -> Path | Estimate:  # fmt: skip
    """Measure what each scheme does to each layer of a pipeline, and write the profile `out`. The same call continues
    an interrupted measurement.

    Args:
        pipeline: `scenes`, a diffusers folder, a hub id, `package.module:name` of a `Subject`, or a `Subject`.
        out: the profile; None with `estimate`.
        prompts: a file with one prompt a line, a YAML list of the arguments of calls, or such a list.
        count: number of built-in prompts, where `prompts` is None.
        schemes: the schemes to measure; None for a default set, `DEFAULT_SCHEMES` or that of the target.
        components: the pipeline's components to plan, or blocks or patterns of layers, such as `unet.mid_block` or
            `text_encoder*`; empty for the denoiser.
        clip: folder or hub id of the CLIPModel that measures alignment.
        timesteps: number of calls of each denoiser whose own outputs are measured.
        steps: denoising steps an image; None for the pipeline's default.
        guidance: guidance scale; None for the pipeline's default.
        seed: prompt i starts from the noise of seed + i.
        method: a name of `bitplan.planner.measurement.methods.METHODS`.
        probes: number of probes of each image metric.
        checks: number of estimates that are also measured exhaustively; None for 16 in float32 and 0 in bfloat16.
        time: time such as `10m`, spent on measurements where a plan of the memory `around` is undecided.
        around: the memory of that plan.
        engine: a name of `bitplan.planner.measurement.engines.ENGINES`.
        address: HOST:PORT of a running Ray cluster; None to start one.
        workers: number of workers of the cluster.
        part: `2/3` measures only the second third of the layers, for `merge`.
        dtype: float type to load the pipeline in, `float32` or `bfloat16`, which takes half the memory. A `Subject`,
            and what a reference gives, has its own, which is read from its modules.
        call: further arguments of the pipeline's call, such as its height.
        metrics: more metrics, built-in ones or `package.module:name`.
        offload_folder: a folder on a disk that holds converted weights instead of memory.
        variant: variant of the weights' files, such as fp16; None for plain ones, or for the only variant. The profile
            and its plans record it, and other verbs take it where a pipeline has it.
        target: measure only what this tool of `bitplan.planner.targets.TARGETS` can load; None for all.
        estimate: only say about how long the measurement would take, and how much memory and disk.

    Returns the path of the profile, or the estimate. Raises UserError.
    """
    from bitplan.planner.measurement import run
    from bitplan.planner.measurement.engines import Cluster
    from bitplan.planner.measurement.worker import Settings
    from bitplan.planner.pipelines.calling import generation_used
    from bitplan.planner.pipelines.conditions import conditions_in, labels_of
    from bitplan.planner.pipelines.sources import generation_of, load_subject
    from bitplan.planner.pipelines.subject import conditions_of, holding
    from bitplan.planner.pipelines.traced import examine_all
    from bitplan.planner.pipelines.weights import Weights

    generation, share = generation_of(pipeline, steps, guidance, seed, call), checking.part_of(part)
    options = run.MeasureOptions(method, engine, Cluster(address, workers), share, checking.checks_of(checks, dtype),
                                 checking.seconds_of(time), around, offload_folder, target)  # fmt: skip
    run.check_options(schemes := schemes_for(target, schemes, DEFAULT_SCHEMES), dtype, options)
    place = checking.place_of(out, estimate)
    checking.tell_begun(place)
    weights = Weights(dtype, variant, folder=offload_folder)
    own, subject = conditions_in(prompts), load_subject(pipeline, generation, weights)
    conditions = conditions_of(subject, own, count)
    traced = examine_all(holding(subject, conditions), conditions, seed, components)
    run.say_coverage(traced, len(conditions))
    options = replace(options, checks=checking.checks_of(checks, traced.dtype))
    run.check_found(traced, dtype, options)
    settings = Settings(
        subject.name, labels_of(conditions), tuple(schemes), generation_used(subject.run, generation), timesteps,
        probes, tuple(components), clip, traced.dtype, tuple(metrics), variant,
    )  # fmt: skip
    expected = run.run_profile(traced, settings, place, options)
    return place or expected


def merge(profiles: Sequence[PathLike], out: PathLike, *, costs: PathLike | None = None) -> Path:
    """Join profiles of one model that were measured apart, such as with `profile(..., part=)`.

    Args:
        profiles: the profiles' files.
        out: the new profile.
        costs: the one of the profiles whose costs are taken, where several have different costs.

    Returns the path of the new profile. Raises UserError where the profiles do not belong together.
    """
    from bitplan.planner.profiles.merge import merge as merge_files

    merge_files([Path(path) for path in profiles], Path(out), None if costs is None else Path(costs))
    return Path(out)


def import_profile(format: str, folder: PathLike, out: PathLike) -> str:
    """Make a profile of what another tool measured.

    Args:
        format: a name of `bitplan.planner.interop.foreign.FORMATS`, such as `mixdq`.
        folder: the folder that holds the tool's files.
        out: the new profile.

    Returns a sentence on what the tool's files left open. Raises UserError.
    """
    from bitplan.planner.interop.foreign import import_folder

    return import_folder(format, Path(folder), Path(out))


def cost(
    profile: PathLike, out: PathLike, *, config: PathLike | None = None, width: int | None = None,
    height: int | None = None, frames: int | None = None, tokens: int | None = None, batch: int = 1,
) -> Path:  # fmt: skip
    """Copy a profile that was measured elsewhere, with the costs of this machine. Each layer is timed alone with random
    weights; the model is not needed.

    Args:
        profile: the profile's file.
        out: the new profile.
        config: source of the layers' shapes and calls, as in `inspect`; None for the profile itself.
        width: width of a picture in px, for `config`.
        height: height of a picture in px, for `config`.
        frames: frames of a video, for `config`.
        tokens: tokens of text, for `config`.
        batch: samples a call, for `config`.

    Returns the path of the new profile. Raises UserError where profile and configuration are of different models.
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
    out: PathLike | None = None, offload_folder: PathLike | None = None, variant: str | None = None,
    trust: bool = False,
) -> Check:  # fmt: skip
    """Test whether the profile of a base model still holds for a fine-tune of it: measure a sample of the profile's
    losses again on the fine-tune, and compare.

    Args:
        profile: the profile of the base model.
        pipeline: the fine-tune, as in `profile`.
        sample: number of (layer, scheme) to measure.
        tolerance: share by which the losses of the old plans may exceed the best of the same bytes.
        plan: judge only the choices of this plan of the profile.
        prompts: the prompts of the profile, where it holds only digests of them and the pipeline does not bring them.
        clip: as in `profile`.
        engine: as in `profile`.
        address: as in `profile`.
        workers: as in `profile`.
        seed: seed of the bootstrap.
        out: a JSON file for the result.
        offload_folder: as in `profile`.
        variant: variant of the weights' files; None for that of the profile.
        trust: also import and run the profile's own metrics, `package.module:name`.

    Raises UserError for a pipeline with other layers, PlanError.
    """
    from bitplan.planner.choice.published import plan_in
    from bitplan.planner.finetunes.check import CheckOptions, check_profile
    from bitplan.planner.measurement.engines import Cluster
    from bitplan.planner.pipelines.conditions import conditions_in
    from bitplan.planner.profiles.profile import open_profile

    checking.check_sample(sample, tolerance)
    judged, conditions = None if plan is None else plan_in(plan), conditions_in(prompts)
    options = CheckOptions(sample, tolerance, judged, clip, seed, conditions, engine, Cluster(address, workers),
                           offload_folder, trust, variant)  # fmt: skip
    with open_profile(profile) as store:
        result = check_profile(store, pipeline, options)
    if out is not None:
        write_json(result.to_json(), Path(out))
    return result
