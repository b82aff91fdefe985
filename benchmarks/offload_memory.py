"""Claim: with `--offload-folder`, profiling needs no memory for weights: `python -m benchmarks.offload_memory`.

Saves a StableDiffusionXLPipeline with random weights in bfloat16 and profiles it in float32, each time in its own
process: without the option, with --offload-folder, and from files that are already in float32. Memory is sampled from
outside every 20 ms: `anonymous` must stay resident; `mapped` belongs to files, which the system can drop and read
again. As a proof, one run must release its mapped pages whenever they exceed --room, as on a machine with less memory.
`added` is relative to a process with its libraries imported. All losses with and without the folder are equal to the
bit; those from float32 files may differ by rounding, since tensors in a file have other addresses modulo 64. Writes
benchmarks/results/offload_memory.json.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from benchmarks.about import about, write_result
from benchmarks.profile_memory import build_pipeline

from bitplan.planner.pipelines.offload import LEAST
from bitplan.planner.profiles.profile import open_profile
from bitplan.planner.scenes import CLIP_FOLDER

PAGE_OUT, PROCESS_MADVISE, MOST = 21, 440, 1024  # of Linux: an advice, a system call, and ranges a call
IMPORTS = (
    "import bitplan.planner.measurement.run, bitplan.planner.measurement.methods.probes\n"
    "import bitplan.planner.pipelines.subject, bitplan.planner.pipelines.traced"
)
EVERY = 0.02  # seconds


class Range(ctypes.Structure):
    """A range of addresses, C's iovec."""

    _fields_ = [("start", ctypes.c_void_p), ("size", ctypes.c_size_t)]


def save(folder: Path, args: argparse.Namespace) -> None:
    """Saves the pipeline in bfloat16 and in float32 with the same values."""
    layers, channels = (tuple(map(int, text.split(","))) for text in (args.layers, args.channels))
    pipe = build_pipeline(layers, channels, args.side // 8)
    pipe.save_pretrained(folder / "bfloat16")
    pipe.to(torch.float32).save_pretrained(folder / "float32")


def memory_of(pid: int) -> dict[str, float]:
    """Returns the current memory of a process in MiB."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        results = {key: int(status.split(f"{key}:")[1].split()[0]) / 1024 for key in ("RssAnon", "RssFile", "VmRSS")}
    except (OSError, IndexError):  # it has ended
        return {}
    return {"anonymous": results["RssAnon"], "mapped": results["RssFile"], "all": results["VmRSS"]}


def imported() -> dict[str, float]:
    """Returns the memory of a process that only imported everything."""
    code = f"{IMPORTS}; import sys; print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        return memory_of(process.pid)


def page_out(pid: int) -> None:
    """Makes the system release the pages that the process mapped from large files, and write changed ones."""
    ranges = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        words = line.split(maxsplit=5)
        start, stop = (int(end, 16) for end in words[0].split("-"))
        if len(words) > 5 and words[5].startswith("/") and stop - start >= LEAST and "x" not in words[1]:
            ranges.append(Range(start, stop - start))
    handle = os.pidfd_open(pid)
    try:
        for at in range(0, len(ranges), MOST):
            some = ranges[at : at + MOST]
            ctypes.CDLL(None).syscall(PROCESS_MADVISE, handle, (Range * len(some))(*some), len(some), PAGE_OUT, 0)
    finally:
        os.close(handle)


def profile(folder: Path, out: Path, options: Sequence[object], room: float | None) -> dict[str, float]:
    """Runs `bitplan profile` and returns the peak MiB of each kind of memory."""
    command = [
        sys.executable, "-m", "bitplan", "profile", folder, "--out", out, "--count", "1", "--steps", "2",
        "--guidance", "1", "--timesteps", "1", "--probes", "1", "--checks", "4", "--clip", CLIP_FOLDER, "--schemes",
        "w4g64ma8,w2ma8", "--threads", "1", *options,
    ]  # fmt: skip
    most: dict[str, float] = {}
    with subprocess.Popen([str(word) for word in command], stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            now = memory_of(process.pid)
            most = {key: max(value, most.get(key, 0.0)) for key, value in now.items()} or most
            if room is not None and now.get("mapped", 0.0) > room:
                page_out(process.pid)
            time.sleep(EVERY)
    if process.returncode:
        raise SystemExit(f"bitplan profile ended with {process.returncode}")
    return most


def measured(path: Path) -> tuple[list[Any], float]:
    """Returns all losses, and the MiB of the layers' weights."""
    with open_profile(path) as store:
        weights = sum(cost.bytes for cost in store.costs() if cost.scheme == "keep")
        return sorted(store.measurements(), key=repr), weights / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", default="1,1,1", help="transformer layers a block of the three resolutions")
    parser.add_argument("--channels", default="192,384,768", help="of the three resolutions")
    parser.add_argument("--side", type=int, default=128, help="px of the image")
    parser.add_argument("--room", type=float, default=400.0, help="MiB of mapped memory, libraries included")
    parser.add_argument("--folder", type=Path, help="on a disk, for all files [of the system for temporary files]")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "offload_memory.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as temporary:
        folder = Path(temporary)
        save(folder, args)
        offload = ("--offload-folder", folder / "offload")
        ways: dict[str, tuple[str, Sequence[object], float | None]] = {
            "bfloat16 files": ("bfloat16", (), None),
            "bfloat16 files, --offload-folder": ("bfloat16", offload, None),
            "float32 files": ("float32", (), None),
            f"bfloat16 files, --offload-folder, {args.room:.0f} MiB for what is mapped": (
                "bfloat16", offload, args.room,
            ),
        }  # fmt: skip
        before, rows, losses = imported(), [], []
        for place, (way, (files, options, room)) in enumerate(ways.items()):
            most = profile(folder / files, folder / f"{place}.profile", options, room)
            results, weights = measured(folder / f"{place}.profile")
            losses.append(results)
            rows.append({
                "way": way, "peak_MiB": most, "added_MiB": {key: most[key] - before[key] for key in most},
                "same_losses": results == losses[0],
            })  # fmt: skip
            print(json.dumps(rows[-1]), flush=True)
    described = about(0, weights_MiB=weights, imported_MiB=before, losses=len(losses[0]), layers=args.layers,
                      channels=args.channels, side=args.side)  # fmt: skip
    write_result(args.out, {"rows": rows}, described)


if __name__ == "__main__":
    main()
