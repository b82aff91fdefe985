"""Command lines of random words: options with nasty values, and paths to what is no file."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tests.fuzz.case import Case, command
from tests.fuzz.values import NAMES, NUMBERS, TEXTS, Random
from tests.fuzz.world import SCHEMES, copied

VERBS = ("solve", "solve", "solve", "sweep", "sweep", "verify", "predict", "why", "inspect", "report", "merge",
         "export", "import", "apply", "profile", "check", "cost", "evaluate", "bench", "completion",
         "nothing")  # fmt: skip
SLOW = {"profile", "check", "cost", "evaluate", "bench", "apply"}  # with a good pipeline they would run it
VALUES = (
    "10%", "30%", "100%", "0%", "-5%", "1e400%", "5KiB", "2000B", "0.5ms", "1e-300s", "nan", "inf", "-inf", "0", "1",
    "2", "-1", "3", "0.5", "0.95", "1e9", "9" * 400, "alignment=w8a8", "nsr=0.01", "nsr=nan", "bytes=1",
    "quality=1,nsr=0.5",
    "lexicographic:quality,nsr", "role:in=w8a8", "unet.conv_in=keep", "unet.conv_in", "role:in", "nsr=-1", "=", "a=",
    "height=[1", "height={", "height=!!python/name:os.getcwd", "height=*a", "height=8", "steps=1", "height='",
    "x=\t1", "height=2001-99-99", "height=&a [*a]", "joint", "int", "fake", "exact", "greedy", "highs", "log", "linear",
    "memory", "latency", "bits", "both", "1/2", "0/0", "2/1", "10m", "1e9h", "sdnq", "torchao", "gguf-recipe",
    "modelopt", "mixdq", "bash", *SCHEMES, *NAMES,
)  # fmt: skip


def run(case: Case) -> None:
    """Makes files of every kind, and runs one or two command lines that name them."""
    places = _places(case)
    for _ in range(case.random.choice((1, 1, 2))):
        words = _words(case, places)
        case.edits.append(repr(words)[:300])
        try:
            answer = command(case, *words)
        finally:
            _check_nodes(case)
        if answer.accepted and words[0] == "nothing":
            case.find("a verb that there is not is accepted", words)


def _words(case: Case, places: dict[str, list[str]]) -> list[str]:
    random = case.random
    verb = random.choice(VERBS)
    words = [verb]
    known = _parameters(verb)
    for parameter in known:
        if isinstance(parameter, click.Argument):
            many = random.choice((1, 1, 1, 2, 3)) if parameter.nargs < 0 else 1
            words += [_argument(random, verb, str(parameter.name), places) for _ in range(many)]
        elif parameter.required or random.random() < (0.15 if len(known) < 12 else 0.07):
            words += _option(random, verb, parameter, places)
    if random.random() < 0.05:
        words.insert(
            random.randrange(len(words)), random.choice(("--", "-", "--nothing", "-h", "--help", "--json", ""))
        )
    if random.random() < 0.05 and len(words) > 1:
        del words[random.randrange(1, len(words))]
    return [_typed(word) for word in words]


def _typed(word: str) -> str:
    """The word as a command line can hold it: without NUL, and not above the system's limit."""
    return word.replace("\x00", "")[:100_000]


def _parameters(verb: str) -> list[click.Parameter]:
    from bitplan.planner.cli.commands import main

    found = main.commands.get(verb)
    return [] if found is None else list(found.params)


def _argument(random: Random, verb: str, name: str, places: dict[str, list[str]]) -> str:
    """Mostly what the argument should be."""
    kind = {"profiles": "profile", "plans": "plan", "runs": "run", "file": random.choice(("profile", "plan"))}.get(
        name, name
    )
    good = places.get(kind)
    if verb in SLOW and kind == "pipeline":
        good = None
    if good and random.random() < 0.75:
        return random.choice(good)
    if name in ("layer", "format", "shell") and random.random() < 0.8:
        return random.choice(("unet.conv_in", "mixdq", "bash", "zsh", "unet.nowhere"))
    return _nasty_path(random, places)


def _option(random: Random, verb: str, parameter: click.Parameter, places: dict[str, list[str]]) -> list[str]:
    flag = random.choice([*parameter.opts, *parameter.secondary_opts])
    if getattr(parameter, "is_flag", False):
        return [flag]
    if parameter.name == "out":
        return [flag, random.choice(places["out"])] if random.random() < 0.8 else [flag, _nasty_path(random, places)]
    if random.random() < 0.15:
        value = random.choice(places["profile"] + places["plan"])
    elif random.random() < 0.1 or parameter.type.name in ("path", "file"):
        value = _nasty_path(random, places)
    elif random.random() < 0.2:
        value = random.choice((*TEXTS, *map(_text, NUMBERS)))
    elif isinstance(parameter.type, click.Choice) and random.random() < 0.8:
        value = str(random.choice(list(parameter.type.choices)))
    else:
        value = random.choice(VALUES)
    if parameter.name in ("points", "candidates", "images", "paint", "count", "distance") and len(value) < 7:
        value = random.choice(("0", "1", "2", "3", "-1", value))
    return [f"{flag}={value}"] if random.random() < 0.5 and flag.startswith("--") else [flag, value]


def _text(number: Any) -> str:
    return "1" + "0" * 400 if isinstance(number, int) and number > 10**300 else str(number)


def _nasty_path(random: Random, places: dict[str, list[str]]) -> str:
    return random.choice(places[random.choice(("unfit", "unfit", "unfit", "nodes", "profile", "plan", "run"))])


def _places(case: Case) -> dict[str, list[str]]:
    """Kind -> paths: good files, what is no file, and places to write to. All of them are in the folder of the case."""
    box, world = case.box, case.world
    inputs = box.inputs
    profile, plan, run_ = (copied(path, inputs) for path in (world.profile, world.plan, world.run))
    (inputs / "empty").write_text("")
    (inputs / "text.yaml").write_text("- a cat\n")
    (inputs / "folder.profile").mkdir()
    (inputs / "loop").symlink_to("loop")
    (inputs / "broken").symlink_to("gone/gone")
    (inputs / "same.profile").symlink_to(profile.name)
    unfit = [inputs / "gone", inputs / "empty", inputs / "text.yaml", inputs / "folder.profile", inputs / "loop",
             inputs / "broken", inputs / ("n" * 300), inputs / "a\nb", inputs / "\udcff", inputs / "empty" / "below",
             box.root / "gone" / "below", inputs / "*", inputs / "text.yaml" / ".." / "empty"]  # fmt: skip
    more = ["", " ", ".", "~nobody", "-", "@", "scenes@", "scenes@1%", "scenes@x", "x@10%", "a:b", "http://127.0.0.1:1",
            "file:///gone", "gone/gone", "gone"]  # fmt: skip
    out = box.out
    (out / "file").write_text("")
    outs = [out / "new", out / "p.plan.yaml", out / "new.profile", out / "r.html", out / "x.png", out / "e.json",
            out / "run"]  # fmt: skip
    return {
        "profile": [str(profile), str(profile), str(inputs / "same.profile")],
        "plan": [str(plan), str(plan), str(copied(world.pipeline_plan, inputs))],
        "run": [str(run_)], "folder": [str(inputs)], "unfit": [*map(str, unfit), *more],
        "nodes": [*map(str, _nodes(inputs))], "out": [*map(str, outs)],
    }  # fmt: skip


def _nodes(folder: Path) -> list[Path]:
    """A FIFO without a writer, a socket, and devices like /dev/null and /dev/full where the system lets make them."""
    made = [folder / "fifo"]
    os.mkfifo(made[0])
    for name, number in (("null", 3), ("full", 7)):
        with contextlib.suppress(OSError):
            os.mknod(folder / name, stat.S_IFCHR | 0o666, os.makedev(1, number))
            made.append(folder / name)
    return made


def _check_nodes(case: Case) -> None:
    """What is no plain file is still there: nothing was written in its place."""
    kinds: dict[str, Callable[[int], bool]] = {"fifo": stat.S_ISFIFO, "null": stat.S_ISCHR, "full": stat.S_ISCHR}
    for name, check in kinds.items():
        path = case.box.inputs / name
        if path.exists() and not check(path.lstat().st_mode):
            case.find(f"a file in the place of a {name}", case.edits)
