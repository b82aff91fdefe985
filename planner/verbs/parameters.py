"""The words of the verbs as the command line shows them: one table. A word's default is in the verb's signature.

Imports no torch by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bitplan.planner.choice.request import KERNELS, REPEATED
from bitplan.planner.measurement.engines import ENGINES
from bitplan.planner.measurement.methods import DTYPES, METHODS
from bitplan.planner.units import SPACINGS
from bitplan.planner.verbs.texts import pairs, pins_to_keep, yaml_values
from bitplan.plans.dtypes import FLOATS
from bitplan.sensitivity.metrics import METRICS
from bitplan.sensitivity.table import FAMILIES

DEFAULT_SCHEMES = ("w8a8", "w6a8", "w5ma8", "w4ma8", "w3ma8", "w2ma8", "w4g64ma8", "w3g64ma8", "w2g64ma8")
BASELINES = FLOATS  # float types that `bench` compares plans with
LOSSES = tuple(name for name, metric in METRICS.items() if metric.additive)  # the metrics of single layers


@dataclass(frozen=True)
class Parameter:
    """One word of a verb on the command line.

    Attributes:
        help: the help of its option; `{names}` stands for the names of the table in `complete`.
        type: type of one value; `bool` makes a flag.
        least: the smallest number that is allowed.
        choices: the only texts that are allowed; may be a table.
        flag: the option's name without dashes; empty for the word itself.
        short: the letter of its short form; empty for none.
        metavar: the name of its value in the help; None for click's own.
        argument: whether it is an argument, not an option, where the verb takes it by position.
        many: whether it takes several values.
        split: whether its text is a comma-separated list.
        repeats: whether a list may have one value twice.
        parse: turns the texts into the verb's value.
        complete: what the shell offers: a function of `bitplan.planner.cli.completion`, or `module:TABLE`.
        loads: whether it names a pipeline, a metric or a model that is loaded, and whose code may run.
        reads: whether it is the path of a file or folder that is read.
        takes: the kinds of what it names, of `bitplan.planner.verbs.order.KINDS`; empty where any is taken.
        check: a function of `bitplan.planner.verbs.early` that refuses what no run could take; empty for none.
        writes: the kind of file that is written to it, of `bitplan.plans.files.KINDS`, or `folder`.
        continues: whether what an earlier call wrote there is continued.
    """

    help: str = ""
    type: type = str
    least: int | None = None
    choices: Collection[str] = ()
    flag: str = ""
    short: str = ""
    metavar: str | None = None
    argument: bool = False
    many: bool = False
    split: bool = False
    repeats: bool = False
    parse: Callable[[Sequence[str]], Any] | None = None
    complete: str = ""
    loads: bool = False
    reads: bool = False
    takes: tuple[str, ...] = ()
    check: str = ""
    writes: str = ""
    continues: bool = False


def _number(help: str, least: int | None = None) -> Parameter:
    return Parameter(help, int, least)


def _path(help: str = "", **more: Any) -> Parameter:
    return Parameter(help, Path, **{"reads": True, **more})


def _out(writes: str, help: str, continues: bool = False) -> Parameter:
    return _path(help, reads=False, writes=writes, short="o", continues=continues)


def _input(type: type = Path, **more: Any) -> Parameter:
    return Parameter(type=type, argument=True, reads=type is Path, **more)


_BACKENDS = "bitplan.solvers.programs.backends:BACKENDS"
_TARGETS = "bitplan.planner.targets:TARGETS"
_CLIP = Parameter("Folder or hub id of the CLIPModel that measures alignment.", loads=True, check="clip")
_SEED = _number("Prompt i starts from the noise of seed + i.")
_GUIDANCE = Parameter("Guidance scale [the pipeline's default].", float, check="guidance")
_TIME_LIMIT = Parameter("Seconds for the solver.", float)

_VARIANT = Parameter("Variant of the weights' files, such as fp16 [the one that was profiled].")

PARAMETERS: dict[str, Parameter] = {  # a word, or `verb.word` where one verb differs
    # arguments
    "file": _input(), "profile": _input(takes=("profile",), check="profile"),
    "plan": _input(takes=("plan",), check="plan"), "folder": _input(),
    "plans": _input(many=True, takes=("plan",), check="plans"),
    "profiles": _input(many=True, takes=("profile",), check="profiles"), "runs": _input(many=True, takes=("run",)),
    "pipeline": _input(str, loads=True, takes=("pipeline",), check="pipeline"), "layer": _input(str, complete="layers"),
    "format": _input(str, complete="bitplan.planner.interop.foreign:FORMATS", check="source"),
    # files that verbs write
    "out": _out("profile", "The new profile."),
    "profile.out": _out("profile", "The profile; an unfinished one is continued.", continues=True),
    "import_profile.out": _out("profile", "The new profile; an unfinished one is continued.", continues=True),
    "solve.out": _out("plan", "The plan file."),
    "sweep.out": _out("folder", "The folder for sweep.json, plans and pictures; an unfinished sweep is continued.",
                      continues=True),
    "paint.out": _out("picture", "The picture; .gif for video, .npy for numbers."),
    "evaluate.out": _out("folder", "The folder for report.md, report.json and images.png."),
    "report.out": _out("page", "The page, one HTML file."),
    "bench.out": _out("json", "Also write the result to this JSON file."),
    "check.out": _out("json", "Also write the result to this JSON file."),
    "export.out": _out("text", "The file; with several components, one file each, with -COMPONENT added to its name."),
    # a choice: the words of `bitplan.planner.choice.request.Request`
    "memory": Parameter("Budget on the stored weights of the planned layers, not on activations or other "
                        "components: 35% of full precision, 900MiB, 1.2GB."),
    "latency": Parameter("Budget on the planned layers' time for one output at a time, guidance included: 80% of full "
                         "precision, 120ms."),
    "bits": Parameter("Budget on the mean bits a weight, scales included.", float),
    "caps": Parameter(
        f"Bound a loss ({', '.join((*LOSSES, *FAMILIES))}), or a metric of your own, by a number or by a scheme: "
        "alignment=w8a8.", flag=REPEATED["caps"], metavar="LOSS=MOST", many=True, parse=pairs("--cap"),
        complete="caps", check="caps"),
    "objective": Parameter("quality, alignment, both, weights in units of means (quality=1,nsr=0.5), or "
                           "lexicographic:alignment,quality.",
                           complete="objectives"),
    "slack": Parameter("Share by which a lexicographic objective may worsen an earlier loss.", float),
    "pins": Parameter("Fix the scheme of a layer, of all in a block (unet.mid_block=w8a8), of all that a pattern "
                      "matches ('unet.*.attn*=w8a8'), or of a role (role:in=w8a8).", flag=REPEATED["pins"],
                      metavar="LAYER=SCHEME", many=True, parse=pairs("--pin"), complete="pins",
                      check="pins"),
    "keep": Parameter("Pin a layer, a block, a pattern or a role to full precision: role:in, 'unet.*.proj_out'.",
                      metavar="LAYER", many=True, parse=pins_to_keep, complete="places"),
    "kernels": Parameter("int: only schemes that a real kernel runs here; fake: simulate any scheme.",
                         choices=KERNELS),
    "confidence": Parameter("Plan with each loss at its upper bound of this confidence, such as 0.95 [mean losses].",
                            float, metavar="SHARE"),
    "target": Parameter("Plan for a tool: only schemes that it can load, in bytes as it holds them: {names}.",
                        metavar="TARGET", complete=_TARGETS, check="target"),
    "profile.target": Parameter("Measure only what a tool can load: {names}.", metavar="TARGET",
                                complete=_TARGETS, check="target"),
    # the solver
    "uniform": Parameter("Give this scheme to every layer instead of solving.", metavar="SCHEME", complete="schemes",
                         check="scheme"),
    "time_limit": _TIME_LIMIT,
    "sweep.time_limit": replace(_TIME_LIMIT, help="Seconds for each limit."),
    "verify.time_limit": replace(_TIME_LIMIT, help="Seconds for --prove."),
    "why.time_limit": replace(_TIME_LIMIT, help="Seconds for each scheme."),
    "gap": Parameter("Share of the objective that may stay unproven.", float),
    "solver": Parameter("{names}.", complete="bitplan.solvers.strategies:STRATEGIES", check="solver"),
    "backend": Parameter("{names} [the first that is installed].", complete=_BACKENDS, check="backend"),
    "verify.backend": Parameter("For --prove: {names} [another one than the plan's own, if installed].",
                                complete=_BACKENDS, check="backend"),
    "worth": Parameter("Also compute what one more MiB or ms would save.", bool),
    "candidates": _number("Number of plans.", 1),
    "distance": _number("Number of layers in which any two of the plans differ.", 1),
    "rerank": Parameter("Measure the plans on this pipeline, or estimate them with interactions (joint), and take the "
                        "best.", metavar="PIPELINE|joint", loads=True, takes=("pipeline",), check="rerank"),
    "prove": Parameter("Also solve again as one plain integer program, and compare.", bool),
    # a sweep
    "by": Parameter("What varies: memory, latency, bits or a loss.", complete="columns"),
    "points": _number("Number of limits."),
    "start": Parameter("One end, written as a budget: 10%, 900MiB [the smallest value that can be reached].",
                       flag="from"),
    "stop": Parameter("The other end [the value of the best plan without a limit].", flag="to"),
    "spacing": Parameter("Even ratios or even steps [log above 0].", choices=SPACINGS),
    "images": _number("Paint this many held-out prompts by each plan, and measure its losses.", 0),
    "paint": _number("Paint at this many limits, evenly spread [all].", 1),
    "sweep.pipeline": Parameter("The pipeline that paints [the profile's own].", loads=True, takes=("pipeline",),
                                check="pipeline"),
    "sweep.count": _number("Prompts to measure losses on [16].", 2),
    # what runs, and on what
    "prompts": _path("A file with one prompt a line, or a YAML list of the arguments of calls.", check="prompts"),
    "solve.prompts": _path("For --rerank: a file with one prompt a line [8 held-out prompts].", check="prompts"),
    "prompt": Parameter("What to paint; may be given several times [a built-in prompt].", many=True, repeats=True),
    "count": _number("Number of built-in prompts.", 1),
    "evaluate.count": _number("Number of built-in prompts.", 2),
    "call": Parameter("An argument of every call, such as eta=0.5; give height and width together.",
                      metavar="NAME=VALUE", many=True, parse=yaml_values("--call"), check="call"),
    "metrics": Parameter("One more metric: a built-in name, or package.module:name of your own.", flag="metric",
                         metavar="NAME", many=True, complete="bitplan.sensitivity.metrics:METRICS", loads=True,
                         check="metrics"),
    "clip": _CLIP,
    "solve.clip": replace(_CLIP, help=f"For --rerank: {_CLIP.help}"),
    "steps": replace(_number("Denoising steps an image [the pipeline's default]."), check="steps"),
    "guidance": _GUIDANCE,
    "explore.steps": _number("Denoising steps of a picture [as PROFILE was measured].", 1),
    "explore.guidance": replace(_GUIDANCE, help="Guidance scale [as PROFILE was measured]."),
    "seed": _SEED,
    "check.seed": _number("Seed of the bootstrap."),
    "allow_mismatch": Parameter("Accept a plan of another model with the same layers.", bool),
    "offload_folder": _path("Folder on a disk that holds converted weights instead of memory.", metavar="FOLDER",
                            reads=False),
    "variant": _VARIANT,
    "solve.variant": replace(_VARIANT, help=f"For --rerank: {_VARIANT.help}"),
    "profile.variant": replace(_VARIANT, help="Variant of the weights' files, such as fp16 [plain, or the only one]."),
    "trust": Parameter("Also import and run what PROFILE names as package.module:name.", bool),
    "threads": _number("CPU threads for torch [all].", 1),
    # a measurement
    "schemes": Parameter("Comma-separated schemes to measure, such as w8a8,w4g64ma8 [a default set].", split=True,
                         complete="schemes", check="schemes"),
    "inspect.schemes": Parameter("For --config: comma-separated schemes to count the bytes of [a default set].",
                                 split=True, complete="schemes", check="schemes"),
    "components": Parameter("Comma-separated components to plan, or blocks or patterns of layers "
                            "(unet.mid_block,'text_encoder*') [the denoiser].", split=True),
    "inspect.components": Parameter("For --config: comma-separated components of a pipeline [all that are modules].",
                                    split=True),
    "timesteps": _number("Number of denoiser calls whose own outputs are measured.", 1),
    "method": Parameter("probes: estimate all losses from a few backward passes, and check some; exhaustive: one run "
                        "for each loss.", choices=METHODS),
    "probes": _number("For --method probes: number of probes of each image metric.", 1),
    "checks": _number("For --method probes: number of estimates that are also measured [16; 0 in bfloat16].", 0),
    "time": Parameter("Spend this time, such as 10m, where plans are still undecided.", metavar="TIME", check="time"),
    "around": Parameter("For --time: the memory of those plans.", metavar="MEMORY", check="memory"),
    "dtype": Parameter("Float type of the pipeline. bfloat16: half the memory, probes only.", choices=DTYPES),
    "engine": Parameter("Where to measure: in this process, or by the workers of a Ray cluster.",
                        choices=ENGINES),
    "address": Parameter("For --engine ray: HOST:PORT of a running cluster [one is started here]."),
    "workers": _number("For --engine ray: number of workers [one a CPU, as memory allows].", 1),
    "estimate": Parameter("Only say about how long this would take, and how much memory and disk; write nothing.",
                          bool),
    "part": Parameter("Measure the K-th of N shares of the layers, to be merged.", metavar="K/N", check="part"),
    "costs": _path("The one of PROFILES whose costs are taken, where several have some.", takes=("profile",),
                   check="profile"),
    "sample": _number("Number of (layer, scheme) to measure.", 1),
    "tolerance": Parameter("Share of extra loss that the old plans may have.", float),
    "check.plan": _path("Judge only this plan of PROFILE.", takes=("plan",), check="plan"),
    # results
    "blocks": Parameter("Also measure each block of layers alone.", bool),
    "pairs": _number("Calls of each variant, in turn.", 1),
    "against": Parameter("A float type to compare with; may be given several times.", choices=BASELINES, many=True),
    "compiled": Parameter("Also time everything under torch.compile, which takes minutes.", bool),
    "batch": _number("Samples a call; guidance makes two of one."),
    "bench.batch": _number("Prompts a call.", 1),
    "inspect.profile": _path("The plan's profile: also show what each role of layers gets.",
                             takes=("profile",), check="profile"),
    "config": Parameter("A component's config.json, or a pipeline's folder; no weights are needed.", metavar="PATH",
                        reads=True),
    "cost.config": Parameter("Source of the layers' shapes, as for `inspect` [the profile itself].", metavar="PATH",
                             reads=True),
    "width": _number("Width of a picture in px [as the configuration says]."),
    "height": _number("Height of a picture in px [as the configuration says]."),
    "frames": _number("Frames of a video [as its pipelines usually make]."),
    "tokens": _number("Tokens of text [as its pipelines usually make]."),
    "to": Parameter("{names}.", metavar="TARGET", complete=_TARGETS, check="target"),
    "model": Parameter("Source of the layers' shapes; JSON: a configuration [the plan's own pipeline].",
                       metavar="PROFILE|PIPELINE|JSON", loads=True),
    "approximate": Parameter("Take the nearest scheme that TARGET can express, and show the changes.", bool),
    # the explorer
    "explore.plans": _path("The folder where plans are saved [the profile's own].", reads=False),
    "explore.pipeline": Parameter("The pipeline that paints [the one that PROFILE was measured on].", loads=True,
                                  takes=("pipeline",), check="pipeline"),
    "port": _number("Port of 127.0.0.1; 0: any free port."),
    "open": Parameter("Also open the page in a browser.", bool),
}  # fmt: skip


def parameter_of(verb: str, word: str) -> Parameter:
    """The parameter of a word in a verb. Raises KeyError."""
    return PARAMETERS.get(f"{verb}.{word}") or PARAMETERS[word]
