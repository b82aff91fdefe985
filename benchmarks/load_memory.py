"""Measures the peak resident memory of loading a UNet of SD-1.5's size packed: `python -m benchmarks.load_memory`.

Random weights are saved as float32 shards, as one float32 file, and packed with every layer at --scheme. Each way of
loading runs in its own process, which then reads every byte of the model, since mapped pages count only once they are
read. `before_MiB` is the resident memory with the libraries imported, `peak_MiB` the largest after that, `added_MiB`
the difference; `allowed_MiB` is 1.2 times the packed bytes plus the largest file read. The first process needs the
float model twice, 7 GiB, to write the files. Writes benchmarks/results/load_memory.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.about import about, write_result
from benchmarks.peak_memory import peak_mib

MODULE = ("-m", "benchmarks.load_memory")  # how its own processes are started
SIZE = "320,640,1280,1280"
WAYS = {  # name -> (folder, whether the plan is applied while loading)
    "float, in shards": ("shards", False),
    "packed, from its own folder": ("packed", False),
    "packed while loading float shards": ("shards", True),
    "packed while loading one float file": ("whole", True),
}


def prepare(folder: Path, channels: tuple[int, ...], scheme: str, shard: str) -> None:
    """Writes the three folders and the plan."""
    import torch
    from diffusers import UNet2DConditionModel

    from bitplan.planner.applied.loading import mark_applied
    from bitplan.planner.graph.fingerprint import fingerprint
    from bitplan.planner.graph.layers import architecture_fingerprint
    from bitplan.planner.graph.trace import find_layers, survey
    from bitplan.plans.layers.swap import swap
    from bitplan.plans.plan import Plan, save_plan
    from bitplan.plans.scheme import parse_scheme

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=64, block_out_channels=channels, layers_per_block=2, cross_attention_dim=768, attention_head_dim=8
    ).eval()
    unet.save_pretrained(folder / "shards", max_shard_size=shard)
    unet.save_pretrained(folder / "whole", max_shard_size="100GB")
    parts = {"unet": unet}
    layers = list(find_layers(parts))
    graph = survey(parts, layers)
    marks = {"fingerprint": fingerprint(parts, graph), "architecture": architecture_fingerprint(graph)}
    model = {"name": "random", "components": ["unet"], **marks}
    plan = Plan(model=model, schemes=dict.fromkeys(layers, scheme), solver={"status": "uniform"})
    swap(parts, dict.fromkeys(layers, parse_scheme(scheme)), keep_originals=False)
    mark_applied(plan, "unet", unet, "int")
    unet.save_pretrained(folder / "packed", max_shard_size=shard)
    save_plan(plan, folder / "p.plan.yaml")


def load(folder: Path, way: str) -> None:
    """Loads in one way and prints one line of JSON."""
    import torch
    from diffusers import UNet2DConditionModel

    import bitplan
    import bitplan.planner.applied.loading  # noqa: F401 - its imports must not count in the peak

    name, planned = WAYS[way]
    options: dict[str, Any] = {}
    if planned:
        options["quantization_config"] = bitplan.config(folder / "p.plan.yaml", "unet")
    before = resident_mib()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    unet = UNet2DConditionModel.from_pretrained(folder / name, **options)
    loaded = peak_mib()
    tensors = list(unet.state_dict().values())
    for tensor in tensors:
        tensor.view(torch.uint8).max()
    stored = sum(tensor.nbytes for tensor in tensors) / 2**20
    file = max(path.stat().st_size for path in (folder / name).glob("*.safetensors")) / 2**20
    print(json.dumps({
        "way": way, "held_MiB": stored, "largest_file_MiB": file, "before_MiB": before, "peak_loading_MiB": loaded,
        "peak_MiB": peak_mib(), "added_MiB": peak_mib() - before, "allowed_MiB": 1.2 * stored + file,
    }))  # fmt: skip


def resident_mib() -> float:
    """Returns the resident memory in MiB."""
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", default=SIZE, help="of the four resolutions")
    parser.add_argument("--scheme", default="w8a8")
    parser.add_argument("--shard", default="500MB", help="the largest file of the sharded folders")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "load_memory.json")
    parser.add_argument("--child", nargs=2, metavar=("FOLDER", "WAY"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        folder, way = Path(args.child[0]), args.child[1]
        if way == "prepare":
            prepare(folder, tuple(map(int, args.channels.split(","))), args.scheme, args.shard)
        else:
            load(folder, way)
        return
    size = ["--channels", args.channels, "--scheme", args.scheme, "--shard", args.shard]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, *MODULE, *size, "--child", folder, "prepare"], check=True)
        rows = []
        for way in WAYS:
            command = [sys.executable, *MODULE, "--child", folder, way]
            line = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
            rows.append(json.loads(line))
            print(rows[-1], flush=True)
    described = about(0, channels=args.channels, scheme=args.scheme, shard=args.shard)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_result(args.out, {"rows": rows}, described)


if __name__ == "__main__":
    main()
