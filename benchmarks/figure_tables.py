"""Selects the figures that docs/figures.md shows of each result file; a file without tables is shown as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """One table of a section, with a row for each value that `at` matches. Rows without a value are left out.

    Attributes:
        caption: the sentence above the table; empty for none.
        at: a path of keys separated by `/`, in which `*` matches any key or index.
        columns: header -> path below the matched value; `@0` stands for the key that the first `*` matched, and ` %`
            behind a path shows the value in percent.
    """

    caption: str
    at: str
    columns: Mapping[str, str]


SOURCES = {  # result file -> the script that writes it, unless it is benchmarks/ and the same name
    "demo": "examples/demo.py",
    "example_audio": "examples/audio/run.py",
    "example_decoder": "examples/decoder/run.py",
}

QUESTIONS: Mapping[str, tuple[str, ...]] = {  # question -> the result files that answer it, in order
    "Do plans lose less than one scheme for all layers?": (
        "demo", "published_plans", "scenes", "mixdq", "watermark", "signed_metrics"),
    "Are losses predicted right?": (
        "probes", "probe_plans", "exhaustive", "example_audio", "example_decoder", "transfer"),
    "What does a profile take?": (
        "profile_time", "profile_memory", "offload_memory", "ray_workers", "kill_resume"),
    "Is the solver right, and how fast is it?": (
        "solver", "brute_force", "mmkp", "scale", "pairs"),
    "How fast is a packed model, and how large?": (
        "cpu_speed", "int8_products", "timing_noise", "peak_memory", "load_memory"),
    "Which models work?": ("pipeline_classes", "meta_models"),
    "How fast are the tools?": ("commands", "open_time", "report_page", "explore_latency"),
    "Is bad input refused?": ("fuzz",),
}  # fmt: skip

_LOSSES = ("nsr", "dssim", "clip_drop", "embed_drift")
_EXAMPLE = {"budget": "budget", "bytes": "bytes/held"}

TABLES: Mapping[str, tuple[Table, ...]] = {
    "demo": (
        Table("Variants, measured on held-out prompts; losses relative to full precision.", "results/*", {
            "variant": "name", "bytes": "bytes/measured", "prompts a call": "denoiser_ms/0/conditions",
            "denoiser ms, x full precision": "denoiser_ms/0/ratio",
            **{f"{loss}, {what}": f"losses/{loss}/{what}" for loss in _LOSSES for what in ("predicted", "measured")},
            "scene accuracy": "scene_accuracy %"}),
    ),
    "brute_force": (
        Table("Problems that were solved, and those whose answers differ from brute force.", "", {
            "problems": "cases", "optimal": "optimal", "infeasible": "infeasible", "differing": "differing",
            "mean seconds": "solve_seconds/mean", "most seconds": "solve_seconds/most"}),
        Table("Reasons why the search stopped.", "stopped/*", {"stopped": "@0", "problems": "."}),
    ),
    "timing_noise": (
        Table("The plan of the fastest schemes, judged by a second timing of the same layers.", "measured/*", {
            "timings": "@0", "actual / predicted": "actual_over_predicted", "actual / least": "actual_over_least"}),
        Table("The same with simulated noise.", "simulated/*", {
            "noise": "@0", **{f"{side}: {name.replace('_over_', ' / ')}": f"{side}/{name}"
                              for side in ("raw", "steadied")
                              for name in ("actual_over_predicted", "actual_over_least")}}),
    ),
    "cpu_speed": (
        Table("Time of one denoiser call by its layers, in float and by plans.", "*/variants/*", {
            "denoiser": "@0", "layers": "name", "compiled": "compiled", "ms": "ms",
            "times as fast as float32": "times/float32", "as bfloat16": "times/bfloat16", "bytes": "bytes"}),
        Table("What bounds the speed-up: the products of int8 codes alone.", "*", {
            "denoiser": "@0", "these layers in float32, ms": "layers_in_float32_ms",
            "int8 products alone, ms": "int8_products_alone_ms"}),
        Table("Predicted and measured time of random plans.", "*", {
            "denoiser": "@0", "within 10 %": "within_10_percent", "median error": "median_error %",
            "mean bias": "mean_bias %", "Spearman": "spearman"}),
    ),
    "example_audio": (
        Table("Losses that `predict` expects of each plan, and those that were measured.", "rows/*", {
            **_EXAMPLE, **{f"{loss}, {what}": f"losses/{loss}/{what}" for loss in ("nsr", "output_nsr", "spectral")
                           for what in ("joint", "measured")}, "pitch heard": "figures/pitch heard %"}),
    ),
    "example_decoder": (
        Table("Losses that `predict` expects of each plan, those that were measured, and what became of the images.",
              "rows/*", {
            **_EXAMPLE, **{f"{loss}, {what}": f"losses/{loss}/{what}" for loss in ("nsr", "dssim", "pixcorr")
                           for what in ("joint", "measured")},
            **{name: f"figures/{name}" for name in ("pixel correlation", "SSIM", "two-way", "scene shown")}}),
    ),
    "fuzz": (
        Table("All cases, and those that ended otherwise than they should.", "", {
            "cases": "cases", "cases that failed": "failed"}),
        Table("The cases by the kind of input.", "families/*", {
            "input": "@0", "cases": "cases", "cases that failed": "failed", "commands": "commands",
            "commands that accepted it": "accepted", "seconds": "seconds", "slowest case": "slowest"}),
    ),
    "int8_products": (
        Table("Time over float32's of all layers of a set.", "*", {
            "path": "@0", "layers of SD-1.5's kind": "sd/total", "layers of `scenes`": "scenes/total",
            "SD-1.5, median layer": "sd/median", "`scenes`, median layer": "scenes/median"}),
        Table("Time of each layer of SD-1.5's kind beside float32.", "*/sd/layers/*", {
            "path": "@0", "layer": "layer", "float32 ms": "float32_ms", "ms": "ms", "ratio": "ratio"}),
    ),
    "exhaustive": (
        Table("Seconds per measurement, of whole runs and of resumed ones.", "ratios/*", {
            "part": "@0", "whole": "whole s", "resumed": "resumed s", "median of ratios": "median of ratios",
            "ratio of sums": "ratio of sums"}),
        Table("The size of the measurement, and how exactly a resumed run repeats a whole one.", "", {
            "(layer, scheme) in all": "candidates", "seconds of recording": "recording s",
            "largest relative difference of a loss": "largest relative difference of a loss"}),
        Table("Time of a measurement by the number of prompts in one call.", "batch/*", {
            "prompts a call": "@0", "seconds, relative": "."}),
    ),
    "kill_resume": (
        Table("The file after all kills, compared with an undisturbed run.", "", {
            "measurements": "rows", "after all kills": "rows_resumed", "identical": "same"}),
        Table("What the file held before and after each of the kills.", "kills/*", {
            "measurements before": "rows_before", "after": "rows_after"}),
    ),
    "meta_models": (
        Table("Computed from configurations only.", "models/*", {
            "model": "@0", "class": "class", "parameters": "parameters", "layers": "layers", "multiply-adds": "macs",
            "CPU seconds": "cpu_seconds", "published parameters": "published/parameters/0",
            "equal": "same/parameters"}),
        Table("Bytes with all layers at one scheme.", "models/*", {
            "model": "@0", **{s: f"bytes/{s}" for s in ("float32", "bfloat16", "w8a8", "w4a8", "w4g64ma8")}}),
    ),
    "mixdq": (
        Table("Plans with the bits of each published plan.", "plans/*/*", {
            "plan": "@0", "solver": "@1", "bits": "bits", "nsr": "nsr", "dssim": "dssim",
            "times less noise than published": "times_less_noise", "joint has times less": "times_joint",
            "seconds": "seconds"}),
    ),
    "published_plans": (
        Table("Predicted and measured losses for `scenes`.", "scenes/rows/*", {
            "plan": "name", "bytes": "totals/bytes",
            **{f"{loss}, predicted": f"totals/{loss}" for loss in _LOSSES},
            **{f"{loss}, measured": f"measured/{loss}/0" for loss in _LOSSES}}),
        Table("Plans for SDXL-Turbo from the measurements of MixDQ's authors, beside the authors' plans.",
              "sdxl-turbo/*/*", {
            "plan": "@0", "by": "@1", "bits": "bits", "nsr": "nsr", "dssim": "dssim", "layers kept": "kept layers"}),
    ),
    "mmkp": (
        Table("The standard instances: the objective of BitPlan beside the best known one.", "rows/*", {
            "instance": "name", "best known": "known", "proven": "proven", "BitPlan": "ours", "bound": "bound",
            "gap": "gap", "seconds": "seconds", "status": "status"}),
    ),
    "probe_plans": (
        Table("The best plan at each budget from each profile, measured on held-out prompts.", "at one budget/*", {
            "share of bytes": "share %",
            **{f"{loss}, {way}": f"{way}/{loss}" for loss in ("nsr", "dssim", "embed_drift")
               for way in ("probes", "exhaustive", "diagonal Fisher")}}),
        *(Table(f"{name.capitalize()}: predicted and measured.", f"{name}/metrics/*", {
            "metric": "@0", "Spearman, sum": "sum/spearman", "joint": "joint/spearman",
            "median of predicted / measured, sum": "sum/median_ratio", "joint estimate": "joint/median_ratio"})
          for name in ("random plans", "good plans")),
    ),
    "probes": (
        Table("Rank correlation with exhaustive measurement, and the share found of the most sensitive tenth.",
              "variants/*", {
            "estimate": "@0", "CPU seconds": "cpu_seconds",
            **{f"{loss}, {what}": f"metrics/{loss}/{path}" for loss in _LOSSES
               for what, path in (("Spearman", "spearman"), ("tenth", "top_tenth_found %"))}}),
    ),
    "profile_time": (
        Table("CPU time of a whole profile by probes, beside exhaustive measurement.", "*", {
            "model": "@0", "layers": "layers", "(layer, scheme)": "pairs", "a whole run": "exhaustive_each/whole",
            "a resumed run": "exhaustive_each/resumed", "by probes": "probes", "and checks": "probes_and_checks",
            "of whole runs": "ratio_to_whole_runs %", "of resumed runs": "ratio_to_resumed_runs %",
            "of resumed runs, without checks": "ratio_without_checks %"}),
        Table("Time with twice as many schemes.", "*/twice_the_schemes", {
            "model": "@0", "(layer, scheme)": "pairs", "times as long": "times"}),
        Table("Time of deeper models: it grows with the number of layers.", "depth/*", {
            "model": "@0", "layers": "layers", "seconds": "seconds"}),
    ),
    "ray_workers": (
        Table("Losses measured by Ray's workers, compared with those of one process.", "methods/*", {
            "method": "@0", "measurements": "measurements", "bit for bit": "bit_for_bit",
            "largest relative difference": "largest_relative_difference", "seconds, local": "seconds_local",
            "seconds, Ray": "seconds_ray"}),
    ),
    "scenes": (
        Table("What the pipeline draws right in full precision, and with all layers at one scheme.", "*", {
            "layers": "@0", "scenes right, one object": "one %", "two": "two %", "dssim": "dssim/mean",
            "its standard error": "dssim/stderr", "embed_drift": "embed_drift/mean",
            "its error": "embed_drift/stderr"}),
        Table("How well its judges judge: the scene reader and the CLIP of `scenes`.", "", {
            "drawn scenes that the reader confirms": "reader %",
            "right caption of 64 by its CLIP": "clip_right_caption_of_64 %"}),
    ),
    "signed_metrics": (
        Table("Losses of plans with the signed metric in the objective, divided by those without.",
              "with_over_without/*", {
            "metric": "@0", "median": "median", "least": "least", "most": "most"}),
    ),
    "pipeline_classes": (
        Table("What became of the classes.", "count", {
            "right": "ok", "refused by name": "refused", "failed": "failed", "wrong": "wrong", "not run": "not run"}),
        Table("`difference` is that of the outputs by the plan, relative to their spread. `same after loading` counts "
              "those of 5 seeds of which the outputs equal the ones before saving, to the bit, and `in float` the same "
              "without a plan.", "classes/*", {
            "class": "class", "family": "family", "result": "result", "planned": "planned", "layers": "layers",
            "method": "method", "difference": "difference", "restored": "restored", "same after loading": "loaded",
            "in float": "loaded in float", "one call": "one call", "output type": "output type"}),
    ),
    "solver": (
        Table("Seconds of each solver on each instance.", "instances/*", {
            "budgets": "budgets", "seed": "seed",
            **{way: f"{way}/seconds" for way in ("naive PuLP+CBC", "gap 1e-3", "proven", "SCIP, gap 1e-3",
                                                 "CP-SAT, gap 1e-3")}}),
        Table("Speed-up over naive PuLP and CBC, median of paired ratios.", "median ratio to naive/*", {
            "instances": "@0", "gap 1e-3": "gap 1e-3", "proven optimal": "proven"}),
        Table("Time of a frontier of 50 budgets.", "frontier/*", {
            "way": "@0", "seconds": "seconds", "largest gap": "largest gap", "times as fast": "ratio"}),
        Table("The largest instance: 5,000 groups of 30 candidates, two budgets.", "large", {
            "candidates": "candidates", "seconds": "seconds", "gap": "gap", "MiB before": "MiB before",
            "peak MiB": "peak MiB"}),
    ),
    "transfer": (
        Table("The check's verdict: extra loss of old plans.", "variants/*/check/families/*", {
            "variant": "@0", "family": "column", "extra loss": "regret %", "from": "low %", "to": "high %",
            "verdict": "verdict"}),
        Table("Plans from the old profile and from the profile of the variant, both measured on the variant.",
              "variants/*/plans/*", {
            "variant": "@0", "budget": "@1", "layers that differ": "layers that differ",
            **{f"{loss}, {whose}": f"{whose}/{loss}/0" for loss in ("nsr", "dssim", "embed_drift")
               for whose in ("old", "own")}}),
    ),
    "watermark": (
        Table("Bit errors of the watermark over the keys, by plans without and with a cap.", "plans/*", {
            "budget": "budget", "plan": "plan", "bytes": "predicted/bytes", "predicted": "errors predicted %",
            "measured": "measured/errors %", "standard error": "measured/stderr %", "marks found": "measured/found %",
            "dssim": "predicted/dssim"}),
    ),
    "commands": (
        Table("Seconds of a command, here and in the other checkout, and their ratio.", "rows/*/*", {
            "command": "@0", "clock": "@1", "this": "this", "other": "other", "ratio": "ratio"}),
    ),
    "explore_latency": (
        Table("Milliseconds from a dragged budget to its plan.", "rows/*", {
            "profile": "profile", "layers": "layers", "budgets": "budgets", "plans": "plans", "median ms": "median_ms",
            "p95 ms": "p95_ms", "most ms": "most_ms", "without a plan": "without_a_plan"}),
    ),
    "load_memory": (
        Table("Memory that loading needs, by what is loaded.", "rows/*", {
            "way": "way", "held MiB": "held_MiB", "largest file MiB": "largest_file_MiB", "before MiB": "before_MiB",
            "peak MiB": "peak_MiB", "added MiB": "added_MiB"}),
    ),
    "offload_memory": (
        Table("Peak memory of a profile, with and without `--offload-folder`.", "rows/*", {
            "way": "way", "peak MiB": "peak_MiB/all", "of it anonymous": "peak_MiB/anonymous",
            "added MiB": "added_MiB/all", "of it anonymous, added": "added_MiB/anonymous",
            "same losses": "same_losses"}),
    ),
    "open_time": (
        Table("CPU seconds to open a profile, here and in the other checkout, and their ratio.", "cpu_seconds", {
            "this": "this", "other": "other", "ratio": "ratio"}),
    ),
    "pairs": (
        Table("Time and objective of a program with pairwise terms, by their number.", "rows/*", {
            "pairs": "pairs", "seconds": "seconds", "objective": "objective", "gap": "gap",
            "objective of the choice that ignores them": "objective of the choice that ignores them"}),
    ),
    "peak_memory": (
        Table("Memory of a UNet of SD-1.5's size, by its layers.", "rows/*", {
            "layers": "variant", "held MiB": "held_MiB", "peak preparing MiB": "peak_preparing_MiB",
            "peak running MiB": "peak_running_MiB", "seconds a call": "seconds_a_call"}),
    ),
    "profile_memory": (
        Table("Peak memory and time of the profile.", "", {
            "layers": "layers", "(layer, scheme)": "pairs", "weights GiB": "weights_GiB", "peak GiB": "peak_GiB",
            "limit GiB": "limit_GiB", "seconds": "seconds"}),
    ),
    "report_page": (
        Table("Size of a report, and how fast it opens.", "rows/*", {
            "run": "run", "layers": "layers", "pictures": "pictures", "plans": "plans", "written s": "written_s",
            "bytes": "bytes", "opens in ms": "median_ms", "readable in ms": "readable_ms", "a step, ms": "step_ms"}),
    ),
    "scale": (
        Table("Plans of the same program in other units of the losses: one plan means that the unit does not matter.",
              "rows/*", {
            "way": "way", "units": "scales", "plans": "plans", "without a plan": "none", "objective": "objective",
            "seconds": "seconds"}),
    ),
}  # fmt: skip
