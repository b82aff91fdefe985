"""Everything wrong that a user can hand over: one line that says what to do, an exit code, never a traceback."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import bitplan
from bitplan.planner.errors import BAD_INPUT, INFEASIBLE
from bitplan.planner.profiles.profile import open_profile
from tests import tiny
from tests.planner.cli.bad_files import (
    Case,
    World,
    duplicate_key,
    garbled_index,
    nan_pipeline,
    newer_profile,
    other_layers,
    other_settings,
    renamed,
    simulated_plan,
    torn_responses,
    torn_weights,
    truncated_profile,
    unfinished_profile,
    without_index,
    without_responses,
)

BAD: list[Case] = [  # what, exit code, a part of the advice, and the command line that gets it
    ("profile that is truncated", BAD_INPUT, "profile again", truncated_profile),
    ("profile that is no SQLite", BAD_INPUT, "name a file that `bitplan profile`",
     lambda w: w.solving(profile=w.text("hello " * 999))),
    ("profile that is empty", BAD_INPUT, "profile again", lambda w: w.solving(profile=w.text(""))),
    ("profile that is missing", BAD_INPUT, "bitplan profile", lambda w: w.solving(profile=w.tmp / "none")),
    ("profile that is a folder", BAD_INPUT, "bitplan profile", lambda w: w.solving(profile=w.tmp)),
    ("profile that is a plan", BAD_INPUT, "name a file that `bitplan profile`", lambda w: w.solving(profile=w.plan)),
    ("profile unfinished", BAD_INPUT, "bitplan profile", unfinished_profile),
    ("profile newer", BAD_INPUT, "upgrade", newer_profile),
    ("profile under a file", BAD_INPUT, "--out", lambda w: w.profiling(out=w.below_a_file())),
    ("profile that is a text", BAD_INPUT, "--out", lambda w: w.profiling(out=w.text("hello " * 999))),
    ("profile resumed otherwise", BAD_INPUT, "--out", other_settings),
    ("schemes unknown", BAD_INPUT, "did you mean", lambda w: w.profiling(schemes="w8a8,w4q64a8")),
    ("schemes of 7 bits", BAD_INPUT, "8, 6, 5", lambda w: w.profiling(schemes="w7a8")),
    ("schemes empty", BAD_INPUT, "',' has no names", lambda w: w.profiling(schemes=",")),
    ("schemes with a space", BAD_INPUT, "did you mean", lambda w: w.profiling(schemes="w8a8;w4a8")),
    ("method unknown", BAD_INPUT, "'probes', 'exhaustive'", lambda w: w.profiling(method="fisher")),
    ("probes 0", BAD_INPUT, "x>=1", lambda w: w.profiling(probes=0)),
    ("checks -1", BAD_INPUT, "x>=0", lambda w: w.profiling(checks=-1)),
    ("bench against int8", BAD_INPUT, "'bfloat16', 'float16'", lambda w: w.benching(against="int8")),
    ("bench into nowhere", BAD_INPUT, "--out", lambda w: w.benching(out=w.tmp / "none" / "b.json")),
    ("bench without pairs", BAD_INPUT, "x>=1", lambda w: w.benching(pairs=0)),
    ("bench with a plan that is missing", BAD_INPUT, "check the path", lambda w: w.benching(w.tmp / "none.yaml")),
    ("checks in 16 bits", BAD_INPUT, "--dtype float32", lambda w: w.profiling(dtype="bfloat16", checks=2)),
    ("exhaustive in 16 bits", BAD_INPUT, "by probes", lambda w: w.profiling(dtype="bfloat16", method="exhaustive")),
    ("time in 16 bits", BAD_INPUT, "--dtype float32", lambda w: w.profiling(dtype="bfloat16", time="1m")),
    ("dtype unknown", BAD_INPUT, "'float32', 'bfloat16'", lambda w: w.profiling(dtype="float16")),
    ("time without a unit", BAD_INPUT, "90s, 10m or 2h", lambda w: w.profiling(time="10")),
    ("time of no length", BAD_INPUT, "90s, 10m or 2h", lambda w: w.profiling(time="0m")),
    ("time negative", BAD_INPUT, "90s, 10m or 2h", lambda w: w.profiling(time="-1m")),
    ("time in words", BAD_INPUT, "90s, 10m or 2h", lambda w: w.profiling(time="a while")),
    ("time infinite", BAD_INPUT, "90s, 10m or 2h", lambda w: w.profiling(time="infs")),
    ("prompts missing", BAD_INPUT, "UTF-8", lambda w: w.profiling(prompts=w.tmp / "none")),
    ("prompts empty", BAD_INPUT, "one on each line", lambda w: w.profiling(prompts=w.text("\n  \n"))),
    ("prompts binary", BAD_INPUT, "UTF-8", lambda w: w.profiling(prompts=w.text(b"\xff\xfe\x00\x93"))),
    ("prompts too many", BAD_INPUT, "--prompts",
     lambda w: ["profile", w.pipeline, "--out", w.tmp / "n", "--count", 99]),
    ("steps 0", BAD_INPUT, "at least 1", lambda w: w.profiling(steps=0)),
    ("steps -1", BAD_INPUT, "at least 1", lambda w: w.applying(None, "--steps", -1)),
    ("timesteps 0", BAD_INPUT, "x>=1", lambda w: w.profiling(timesteps=0)),
    ("threads 0", BAD_INPUT, "x>=1", lambda w: w.profiling(threads=0)),
    ("guidance nan", BAD_INPUT, "--guidance", lambda w: w.profiling(guidance="nan")),
    ("component unknown", BAD_INPUT, "it has vae, text_encoder, unet", lambda w: w.profiling(components="unet2")),
    ("component no module", BAD_INPUT, "it has vae, text_encoder, unet", lambda w: w.profiling(components="tokenizer")),
    ("pipeline missing", BAD_INPUT, "hub id", lambda w: w.profiling(w.tmp / "none")),
    ("pipeline without index", BAD_INPUT, "save_pretrained", without_index),
    ("pipeline with a garbled index", BAD_INPUT, "name `scenes`", garbled_index),
    ("pipeline with torn weights", BAD_INPUT, "name `scenes`", torn_weights),
    ("pipeline that is a file", BAD_INPUT, "hub id", lambda w: w.profiling(w.text("no pipeline"))),
    ("pipeline offline", BAD_INPUT, "hub id", lambda w: w.profiling("someone/no-such-model")),
    ("pipeline with NaN", BAD_INPUT, "are not finite; check the weights",
     lambda w: w.profiling(nan_pipeline(w, lambda x: x.fill_(torch.nan)))),
    ("clip missing", BAD_INPUT, "--clip", lambda w: w.profiling(clip=w.tmp / "none")),
    ("clip that is a pipeline", BAD_INPUT, "--clip", lambda w: w.profiling(clip=w.pipeline)),
    ("memory unreachable", INFEASIBLE, "raise the budget", lambda w: w.solving("--memory", "1%")),
    ("memory zero", INFEASIBLE, "raise the budget", lambda w: w.solving("--memory", "0")),
    ("bits unreachable", INFEASIBLE, "raise the budget", lambda w: w.solving("--bits", 1)),
    ("latency unreachable", INFEASIBLE, "raise the budget", lambda w: w.solving("--latency", "1us")),
    ("loss cap unreachable", INFEASIBLE, "raise the budget",
     lambda w: w.solving("--memory", "25%", "--cap", "nsr=1e-9")),
    ("budgets at odds", INFEASIBLE, "raise the budget", lambda w: w.solving("--memory", "20%", "--latency", "120%")),
    ("uniform outside", INFEASIBLE, "w8a8", lambda w: w.solving("--uniform", "w8a8", "--memory", "10%")),
    ("pins too big", INFEASIBLE, "raise the budget",
     lambda w: w.solving("--memory", "8%", *[p for a in layers_of(w) for p in ("--pin", f"{a}=keep")])),
    ("memory no number", BAD_INPUT, "MiB", lambda w: w.solving("--memory", "lots")),
    ("memory negative", BAD_INPUT, "MiB", lambda w: w.solving("--memory=-3MiB")),
    ("memory in ms", BAD_INPUT, "MiB", lambda w: w.solving("--memory", "80ms")),
    ("memory infinite", BAD_INPUT, "finite", lambda w: w.solving("--memory", "1e999")),
    ("latency no number", BAD_INPUT, "ms", lambda w: w.solving("--latency", "fast")),
    ("latency infinite", BAD_INPUT, "finite", lambda w: w.solving("--latency", "1e999ms")),
    ("bits nan", BAD_INPUT, "--bits", lambda w: w.solving("--bits", "nan")),
    ("bits negative", BAD_INPUT, "--bits", lambda w: w.solving("--bits", "-1")),
    ("time limit 0", BAD_INPUT, "expected seconds > 0", lambda w: w.solving("--time-limit", "0")),
    ("time limit nan", BAD_INPUT, "expected seconds > 0", lambda w: w.solving("--time-limit", "nan")),
    ("cap without a value", BAD_INPUT, "alignment=w8a8", lambda w: w.solving("--cap", "alignment")),
    ("cap of an unknown column", BAD_INPUT, "did you mean", lambda w: w.solving("--cap", "aligment=w8a8")),
    ("cap by no scheme", BAD_INPUT, "did you mean", lambda w: w.solving("--cap", "alignment=w8q8")),
    ("cap by a scheme not measured", BAD_INPUT, "--schemes", lambda w: w.solving("--cap", "alignment=w6a8")),
    ("cap given twice", BAD_INPUT, "once", lambda w: w.solving("--cap", "nsr=1", "--cap", "nsr=2")),
    ("cap nan", BAD_INPUT, "finite", lambda w: w.solving("--cap", "alignment=nan")),
    ("pin unknown layer", BAD_INPUT, "did you mean", lambda w: w.solving("--pin", "unet.conv_inn=w8a8")),
    ("pin unoffered scheme", BAD_INPUT, "did you mean", lambda w: w.solving("--pin", "unet.conv_in=w6a8")),
    ("pin simulated", BAD_INPUT, "--kernels fake", lambda w: w.solving("--pin", "unet.conv_in=w4a4")),
    ("pin without a value", BAD_INPUT, "--pin", lambda w: w.solving("--pin", "unet.conv_in=")),
    ("objective unknown", BAD_INPUT, "did you mean", lambda w: w.solving("--objective", "qualty")),
    ("objective negative", BAD_INPUT, "at least 0", lambda w: w.solving("--objective", "quality=-1")),
    ("objective no number", BAD_INPUT, "quality=1", lambda w: w.solving("--objective", "quality=much")),
    ("objective empty", BAD_INPUT, "quality", lambda w: w.solving("--objective", "")),
    ("uniform unknown", BAD_INPUT, "weights have 8, 6, 5, 4, 3, 2 bits", lambda w: w.solving("--uniform", "w9a9")),
    ("uniform not measured", BAD_INPUT, "--schemes", lambda w: w.solving("--uniform", "w6a8")),
    ("uniform simulated", BAD_INPUT, "--kernels fake", lambda w: w.solving("--uniform", "w4a4")),
    ("solver unknown", BAD_INPUT, "exact, ilp, lagrangian, greedy, split", lambda w: w.solving("--solver", "gurobi")),
    ("backend unknown", BAD_INPUT, "highs", lambda w: w.solving("--backend", "gurobi")),
    ("gap of all", BAD_INPUT, "gap is 1; expected", lambda w: w.solving("--gap", "1")),
    ("confidence of a percentage", BAD_INPUT, "at least 0.5", lambda w: w.solving("--confidence", "95")),
    ("slack negative", BAD_INPUT, "--slack", lambda w: w.solving("--slack=-0.1")),
    ("lexicographic by nothing", BAD_INPUT, "without a name", lambda w: w.solving("--objective", "lexicographic:")),
    ("lexicographic by a typo", BAD_INPUT, "did you mean",
     lambda w: w.solving("--objective", "lexicographic:qualty,alignment")),
    ("candidates by greed", BAD_INPUT, "--solver exact",
     lambda w: w.solving("--memory", "20%", "--candidates", 2, "--solver", "greedy")),
    ("candidates too far apart", BAD_INPUT, "1 to", lambda w: w.solving("--candidates", 2, "--distance", 99999)),
    ("candidates of a uniform plan", BAD_INPUT, "leave", lambda w: w.solving("--uniform", "w8a8", "--candidates", 2)),
    ("sweep of one limit", BAD_INPUT, "--points", lambda w: w.sweeping("10%", "50%", "--points", 1)),
    ("sweep of countless limits", BAD_INPUT, "at most 10000", lambda w: w.sweeping("10%", "50%", "--points", 10**9)),
    ("candidates without end", BAD_INPUT, "at most 1000", lambda w: w.solving("--candidates", 2**53)),
    ("roles of a scheme not measured", BAD_INPUT, "did not measure",
     lambda w: ["inspect", w.spoilt_plan(lambda p: p["schemes"].update({"unet.conv_in": "w6a8"})), "--profile",
                w.profile]),
    ("sweep by no amount", BAD_INPUT, "MiB", lambda w: w.sweeping("a bit", "50%")),
    ("sweep by no bits", BAD_INPUT, "4.5", lambda w: w.sweeping("4%", "8", "--by", "bits")),
    ("sweep of no column", BAD_INPUT, "did you mean", lambda w: w.sweeping("1", "2", "--by", "alinment")),
    ("sweep of a budget", BAD_INPUT, "leave", lambda w: w.sweeping("10%", "50%", "--bits", 4)),
    ("sweep in ratios of nothing", BAD_INPUT, "--spacing linear",
     lambda w: w.sweeping("0", "1", "--by", "nsr", "--spacing", "log")),
    ("sweep of nothing to trade", BAD_INPUT, "another budget",
     lambda w: ["sweep", w.profile, "--by", "nsr", "--out", w.tmp / "new"]),
    ("sweep within nothing", INFEASIBLE, "bytes", lambda w: ["sweep", w.profile, "--by", "nsr", "--memory", "1%",
                                                             "--out", w.tmp / "new"]),
    ("sweep into a file", BAD_INPUT, "choose another --out", lambda w: w.sweeping("10%", "50%", "--out", w.profile)),
    ("sweep with a count of no images", BAD_INPUT, "--images", lambda w: w.sweeping("10%", "50%", "--count", 4)),
    ("sweep measured on too few", BAD_INPUT, "at least 8",
     lambda w: w.sweeping("10%", "50%", "--images", 8, "--count", 4)),
    ("why of no layer", BAD_INPUT, "did you mean 'unet.conv_in'", lambda w: ["why", w.plan, w.profile, "unet.conv_im"]),
    ("why of another model", BAD_INPUT, "own profile",
     lambda w: ["why", w.spoilt_plan(lambda p: p["model"].update(fingerprint="0" * 64)), w.profile, "unet.conv_in"]),
    ("verify of another model", BAD_INPUT, "own profile",
     lambda w: ["verify", w.spoilt_plan(lambda p: p["model"].update(fingerprint="0" * 64)), w.profile]),
    ("verify of a plan with other columns", BAD_INPUT, "did you mean",
     lambda w: ["verify", w.spoilt_plan(lambda p: p["budgets"].update(bites=1)), w.profile]),
    ("predict of another model", BAD_INPUT, "own profile",
     lambda w: ["predict", w.spoilt_plan(lambda p: p["model"].update(fingerprint="0" * 64)), w.profile]),
    ("predict without responses", BAD_INPUT, "--method probes", lambda w: ["predict", w.plan, without_responses(w)]),
    ("predict of a scheme not measured", BAD_INPUT, "run the profile to its end",
     lambda w: ["predict", w.spoilt_plan(lambda p: p["schemes"].update({"unet.conv_in": "w6a8"})), w.profile]),
    ("predict of another layer", BAD_INPUT, "solve again",
     lambda w: ["predict", w.spoilt_plan(lambda p: p["schemes"].update({"unet.nowhere": "w8a8"})), w.profile]),
    ("predict of torn responses", BAD_INPUT, "profile again", lambda w: ["predict", w.plan, torn_responses(w)]),
    ("predict of no plan", BAD_INPUT, "bitplan solve", lambda w: ["predict", w.profile, w.profile]),
    ("predict of no profile", BAD_INPUT, "name a file that `bitplan profile`", lambda w: ["predict", w.plan, w.plan]),
    ("rerank by joint without responses", BAD_INPUT, "--method probes",
     lambda w: w.solving("--memory", "30%", "--candidates", 2, "--rerank", "joint", profile=without_responses(w))),
    ("rerank of a uniform plan by joint", BAD_INPUT, "leave",
     lambda w: w.solving("--uniform", "w8a8", "--rerank", "joint")),
    ("kernels unknown", BAD_INPUT, "fake", lambda w: w.solving("--kernels", "cuda")),
    ("plan under a file", BAD_INPUT, "--out", lambda w: ["solve", w.profile, "--out", w.below_a_file()]),
    ("plan to a folder", BAD_INPUT, "--out", lambda w: ["solve", w.profile, "--out", w.tmp]),
    ("plan missing", BAD_INPUT, "check the path", lambda w: w.applying(w.tmp / "none.yaml")),
    ("plan that is a profile", BAD_INPUT, "bitplan solve", lambda w: w.applying(w.profile)),
    ("plan with a syntax error", BAD_INPUT, "solve again", lambda w: w.applying(w.text("schemes: [unclosed"))),
    ("plan with an object", BAD_INPUT, "solve again",
     lambda w: w.applying(w.text("bitplan: !!python/object/apply:os.system ['true']\n"))),
    ("plan with a key twice", BAD_INPUT, "given twice", duplicate_key),
    ("plan with a scalar", BAD_INPUT, "bitplan solve", lambda w: w.applying(w.text("42"))),
    ("plan without schemes", BAD_INPUT, "schemes", lambda w: w.applying(w.spoilt_plan(lambda p: p.pop("schemes")))),
    ("plan with an unknown key", BAD_INPUT, "did you mean 'budgets'",
     lambda w: w.applying(w.spoilt_plan(renamed("budgets", "budget")))),
    ("plan with an unknown scheme", BAD_INPUT, "names no scheme (forms: w8a8",
     lambda w: w.applying(w.spoilt_plan(lambda p: p["schemes"].update({"unet.conv_in": "w5q"})))),
    ("plan newer", BAD_INPUT, "upgrade", lambda w: w.applying(w.spoilt_plan(lambda p: p.update(bitplan=3)))),
    ("plan for other layers", BAD_INPUT, "use the model it was made for; there are unet.conv_in, ",
     lambda w: w.applying(w.spoilt_plan(other_layers))),
    ("plan for other weights", BAD_INPUT, "--allow-mismatch",
     lambda w: w.applying(w.spoilt_plan(lambda p: p["model"].update(fingerprint="0" * 64)))),
    ("plan for another component", BAD_INPUT, "it has",
     lambda w: w.applying(w.spoilt_plan(lambda p: p["model"].update(components=["transformer"])))),
    ("plan without a needed range", BAD_INPUT, "calibrate",
     lambda w: w.applying(w.spoilt_plan(lambda p: p["schemes"].update({"unet.conv_in": "w8a8t"})), "--allow-mismatch")),
    ("plan simulated, int kernels", BAD_INPUT, "--kernels fake", simulated_plan),
    ("NaN at apply", BAD_INPUT, "sound weights",
     lambda w: w.applying(pipeline=nan_pipeline(w, lambda x: x.fill_(torch.inf)))),
    ("NaN let through", BAD_INPUT, "sound weights",
     lambda w: w.applying(None, "--allow-mismatch", pipeline=nan_pipeline(w, lambda x: x.fill_(torch.nan)))),
    ("picture under a file", BAD_INPUT, "--out", lambda w: w.applying(None, "--out", w.below_a_file())),
    ("picture of no kind", BAD_INPUT, ".png", lambda w: w.applying(None, "--out", w.tmp / "x.picture")),
    ("file of prompts missing", BAD_INPUT, "cannot read the prompts",
     lambda w: ["apply", w.plan, w.pipeline, "--prompts", w.tmp / "gone.txt", "--out", w.tmp / "x.png"]),
    ("report under a file", BAD_INPUT, "--out", lambda w: evaluating(w, w.below_a_file())),
    ("report of plans of one name", BAD_INPUT, "rename",
     lambda w: evaluating(w, w.tmp / "r", Path(shutil.copy(w.plan, w.tmp)))),
    ("report of one plan twice", BAD_INPUT, "name it once", lambda w: evaluating(w, w.tmp / "r", w.plan)),
    ("report of plans of other layers", BAD_INPUT, "one by one",
     lambda w: evaluating(w, w.tmp / "r", w.spoilt_plan(lambda p: p["schemes"].pop("unet.conv_in")))),
    ("inspect missing", BAD_INPUT, "check the path", lambda w: ["inspect", w.tmp / "none"]),
    ("inspect a folder", BAD_INPUT, "check the path", lambda w: ["inspect", w.tmp]),
    ("inspect neither", BAD_INPUT, "bitplan solve", lambda w: ["inspect", w.text("hello")]),
    ("command unknown", BAD_INPUT, "Usage", lambda w: ["plan"]),
]  # fmt: skip


def layers_of(w: World) -> tuple[str, ...]:
    with open_profile(w.profile) as store:
        return store.layers()


def evaluating(w: World, out: Path, *more: Path) -> list[object]:
    return ["evaluate", w.plan, *more, w.pipeline, "--clip", w.clip, "--count", 2, "--steps", 1, "--no-blocks",
            "--out", out]  # fmt: skip


@pytest.fixture(scope="module")
def good_plan(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plan") / "good.plan.yaml"
    bitplan.solve(finished, path, memory="40%")
    return path


@pytest.mark.parametrize(("code", "hint", "make"), [pytest.param(*case[1:], id=case[0]) for case in BAD])
def test_bad_input_is_one_line_with_advice(
    code: int, hint: str, make: Callable[[World], list[object]], command_line: Any, tiny_folder: Path,
    clip_folder: Path, profile: Path, good_plan: Path, tmp_path: Path,
) -> None:  # fmt: skip
    arguments = make(World(tiny_folder, clip_folder, profile, good_plan, tmp_path))
    result = command_line(*arguments)
    assert result.exit_code == code, result.stderr or result.exception
    assert isinstance(result.exception, SystemExit)
    assert hint in result.stderr
    assert "Traceback" not in result.stderr
    if not result.stderr.startswith("Usage: "):  # click's own words for click's own errors
        lines = result.stderr.splitlines()
        assert len(lines) == 1
        assert lines[0].startswith("bitplan: ")
    left = {path.name for path in tmp_path.iterdir()} & {"new.profile", "new.yaml", "x.png", "r"}
    assert left <= {"new.profile"}


def test_a_real_process_says_no_more_than_that_line(tiny_folder: Path, good_plan: Path, tmp_path: Path) -> None:
    """Nor do the libraries, which have been loaded by then."""
    other = tiny.save_pipeline(tmp_path / "other", seed=1)
    command = ["apply", good_plan, other, "--prompt", "a cat", "--out", tmp_path / "x.png"]
    done = subprocess.run([sys.executable, "-m", "bitplan", *map(str, command)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (BAD_INPUT, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("bitplan: ")
    assert "--allow-mismatch" in done.stderr
