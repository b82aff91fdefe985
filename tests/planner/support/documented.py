"""Finds the `bitplan` commands in README and docs, and substitutes the names that they use.

A test runs each command with the rows of STAND_INS in place of its inputs and the options of SHORTER at its end. A
command that cannot run here is in NOT_RUN with the reason; its options are still checked.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")),
         *sorted((ROOT / "examples").glob("*/README.md"))]  # fmt: skip

RUN_ELSEWHERE = {  # page -> the test that runs all of it, in order
    "docs/tutorial.md": "tests/docs/test_tutorial.py",
    "docs/your-own-pipeline.md": "tests/examples/test_own_pipeline.py",
}

# `verb word`, the first row that matches -> what is given instead: a key of the fixture `stand_in`. A file that an
# earlier command of the page has written is taken as it is.
STAND_INS = (
    (r"import FOLDER", "mixdq folder"),
    (r"report RUN", "run"),
    (r"\w+ (scenes|PIPELINE|FOLDER|SDXL-FOLDER)", "pipeline"),
    (r"inspect (.*/)?config\.json", "config.json"),
    (r"solve 80%", "latency"),
    (r"apply stabilityai/.*", "pipeline"),
    (r"\w+ (.*\.plan\.yaml|[\w-]+@\w+%?)", "plan"),  # or the name of a published one
    (r"\w+ .*\.profile", "profile"),
)
WRITES = ("--out", "--plans")  # the next word is a file or folder to be made

# The first row that matches a command -> options that make it short. CLIP: a tiny one, for models that bring none.
_FEW = "--count 1 --timesteps 1 --probes 1 --checks 0 --schemes w8a8,w4ma8,w2ma8 --clip CLIP"
SHORTER = (
    (r"bitplan profile .*--target gguf", f"{_FEW} --steps 2".replace("w8a8,w4ma8,w2ma8", "w8g32a8,w4g32a8")),
    (r"bitplan profile .*--target", f"{_FEW} --steps 2".replace("w8a8,w4ma8,w2ma8", "w8a8,w8a16,w4a16")),
    (r"bitplan profile \S+:", _FEW),  # a Subject says itself how many steps it takes
    (r"bitplan profile ", f"{_FEW} --steps 2"),
    (r"bitplan sweep ", "--points 3 --images 1 --paint 1 --count 2 --clip CLIP"),
    (r"bitplan apply ", "--steps 2"),
    (r"bitplan evaluate ", "--count 2 --steps 2 --no-blocks --clip CLIP"),
    (r"bitplan bench ", "--pairs 1 --against float32"),
    (r"bitplan check ", "--sample 2 --tolerance 1000 --clip CLIP"),
)

NOT_RUN = {  # the command without its comment -> why
    f"bitplan profile PIPELINE --out X.profile --engine ray{more}": "needs a cluster, as test_ray.py has"
    for more in ("", " --workers 4", " --threads 1", " --address 10.0.0.1:6379", " --address HEAD:6379")
} | {"bitplan explore scenes.profile --open": "serves until it is stopped: tests/planner/page/test_server.py stops it"}

FILES = {  # what commands name beside pipelines, profiles and plans
    "my_model.py": """
import torch
from torch import nn
from bitplan import Subject

def subject():
    torch.manual_seed(0)
    denoiser = nn.Sequential(nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 512), nn.SiLU(), nn.Linear(512, 64))
    decoder = nn.Sequential(nn.Linear(64, 3 * 16 * 16), nn.Sigmoid())

    def run(conditions, seed):
        x = torch.stack([torch.randn(64, generator=torch.Generator().manual_seed(seed + i)) for i in conditions])
        for _ in range(2):
            x = x - denoiser(x) / 2
        return decoder(x).unflatten(1, (3, 16, 16))

    return Subject({"denoiser": denoiser, "decoder": decoder}, run, conditions=list(range(4)), output="images")
""",
    "my_metrics.py": """
def sharpness(full, variant):
    return (full - variant).diff(dim=-1).square().flatten(1).mean(1)
""",
}


@dataclass(frozen=True)
class Command:
    """One command. page: its path from the root; words: from `bitplan` up to a shell operator."""

    page: str
    words: tuple[str, ...]

    @property
    def text(self) -> str:
        return shlex.join(self.words)


def in_code() -> Iterator[Command]:
    """Returns the commands in fenced or indented code; a block of `console` has outputs, and `$ ` before commands."""
    for page in PAGES:
        text = page.read_text("utf-8").replace("\\\n", " ")
        lines = re.findall(r"^ {4}.*$", text, re.MULTILINE)
        for _, language, block in re.findall(r"^(```+)(.*)\n([\s\S]*?)^\1", text, re.MULTILINE):
            lines += [line for line in block.splitlines() if language != "console" or line.startswith("$ ")]
        for line in lines:
            if re.search(r"\bbitplan \w", line):
                yield from _commands(page, line)


def in_line() -> Iterator[Command]:
    """Returns the commands within sentences, with arguments and without."""
    for page in PAGES:
        for text in re.findall(r"`(bitplan\s+[^`]+)`", page.read_text("utf-8")):
            yield from _commands(page, text)


def _commands(page: Path, line: str) -> Iterator[Command]:
    """Yields the commands of one line, several where the shell joins them; optional parts in brackets are included."""
    line = re.sub(r"\[(--.*?)\]", r"\1", line).replace('"$(', "$(").replace(')"', ")")
    tokens = shlex.shlex(line, posix=True, punctuation_chars="|&;()<>")
    tokens.whitespace_split = True
    words: list[str] = []
    for token in [*tokens, ";"]:
        if words and set(token) <= set("|&;()<>"):
            yield Command(str(page.relative_to(ROOT)), tuple(words))
            words = []
        elif words or token == "bitplan":
            words.append(token)
