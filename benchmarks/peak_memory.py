"""Measures the peak resident memory of a UNet of SD-1.5's size with random weights: `python -m
benchmarks.peak_memory`.

Each variant runs denoising calls on 64x64 latents in its own process: the float32 UNet, and the same UNet with every
layer at a real packed scheme, whose float weights are freed layer by layer. `peak_preparing` includes the float UNet
before packing; `peak_running` is the peak of generation after it. Writes benchmarks/results/peak_memory.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.about import about, write_result

MODULE = ("-m", "benchmarks.peak_memory")  # how its own processes are started
VARIANTS = ("fp32", "w8a8", "w4ma8", "w2ma8")


def child(variant: str, calls: int) -> None:
    """Builds, swaps and runs the model, and prints one line of JSON."""
    import torch
    from diffusers import UNet2DConditionModel

    from bitplan.plans.layers.modules import module_bytes
    from bitplan.plans.layers.swap import layer_addresses, swap
    from bitplan.plans.scheme import parse_scheme

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=64, block_out_channels=(320, 640, 1280, 1280), layers_per_block=2, cross_attention_dim=768,
        attention_head_dim=8,
    ).eval()  # fmt: skip
    if variant != "fp32":
        parts = {"unet": unet}
        swap(parts, dict.fromkeys(layer_addresses(parts), parse_scheme(variant)), keep_originals=False)
    prepared = peak_mib()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of building, so that what follows is the run's
    seconds = []
    with torch.no_grad():
        for _ in range(calls):
            start = time.perf_counter()
            unet(torch.zeros(2, 4, 64, 64), 500, torch.zeros(2, 77, 768))
            seconds.append(time.perf_counter() - start)
    print(json.dumps({
        "variant": variant, "held_MiB": module_bytes(unet) / 2**20, "peak_preparing_MiB": prepared,
        "peak_running_MiB": peak_mib(), "peak_whole_process_MiB": max(prepared, peak_mib()),
        "seconds_a_call": min(seconds),
    }))  # fmt: skip


def peak_mib() -> float:
    """Returns the largest resident memory since the last reset."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--child", choices=VARIANTS)
    parser.add_argument("--calls", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "peak_memory.json")
    args = parser.parse_args()
    if args.child:
        child(args.child, args.calls)
        return
    rows = []
    for variant in VARIANTS:
        command = [sys.executable, *MODULE, "--child", variant, "--calls", str(args.calls)]
        rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        print(rows[-1], flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_result(args.out, {"rows": rows}, about(0))


if __name__ == "__main__":
    main()
