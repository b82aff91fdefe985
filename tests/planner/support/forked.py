"""Runs the command line in processes of their own that share one import of torch and diffusers.

A process without threads imports them once for all tests of a worker, and is forked for each run. A forked process can
be killed like any other. How `python -m bitplan` starts is tested in tests/planner/cli/test_crashes.py.
"""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.process import BaseProcess
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
                                 "bitplan.planner.verbs.measure", "bitplan.planner.measurement.run"])  # fmt: skip


def start(*words: str, output: Path = Path(os.devnull)) -> BaseProcess:
    """Starts `bitplan WORDS` in the environment of now. output: the file for what it prints, with its errors."""
    process = _CONTEXT.Process(target=_main, args=(words, output, dict(os.environ), Path.cwd()), daemon=True)
    process.start()
    return process


def _main(words: tuple[str, ...], output: Path, environment: dict[str, str], folder: Path) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    with output.open("w") as file:
        os.dup2(file.fileno(), 1), os.dup2(file.fileno(), 2)
    from bitplan.planner.cli import main

    main(list(words), prog_name="bitplan")
