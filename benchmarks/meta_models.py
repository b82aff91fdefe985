"""Claim: a configuration alone gives parameters, layers and bytes of the published models, in seconds, without
weights.

    python -m benchmarks.meta_models

Builds each model of benchmarks/published/ on the meta device, runs it once at its usual size, and compares it with
published numbers (benchmarks/published/counts.json, with their sources): parameters, layers, and the size of the
checkpoint file to the byte where it is known (with the file's header of names and shapes), else the bytes of its
tensors, or the rounded size of a web page. Writes benchmarks/results/meta_models.json.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import resource
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bitplan.planner.graph.layers import total_macs, total_parameters
from bitplan.planner.outlines.examine import examine, stored
from bitplan.planner.outlines.models import read
from bitplan.plans.scheme import parse_scheme

FOLDER = Path(__file__).parent / "published"
SCHEMES = ("w8a8", "w4a8", "w4g64ma8")
_ITEMSIZE = {"F32": 4, "F16": 2, "BF16": 2}  # of the types as safetensors writes them


def counts() -> dict[str, Any]:
    """Returns the published numbers of each model."""
    results: dict[str, Any] = json.loads((FOLDER / "counts.json").read_text())
    return results


def file_bytes(module: nn.Module, dtype: str) -> int:
    """Returns the bytes of diffusers' single safetensors file of the module: 8, the header of names, types, shapes and
    offsets, padded to a multiple of 8, and the tensors with persistent buffers.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in sorted(module.state_dict().items()):
        start, end = end, end + tensor.numel() * _ITEMSIZE[dtype]
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [start, end]}
    return 8 + math.ceil(len(json.dumps(header, separators=(",", ":"))) / 8) * 8 + end


def compare(module: nn.Module, layers: int, published: Mapping[str, Any]) -> dict[str, bool]:
    """Returns for each published number whether the module agrees."""
    parameters = sum(tensor.numel() for tensor in module.parameters())
    same = {"parameters": parameters == published["parameters"][0]}
    if "layers" in published:
        same["layers"] = layers == published["layers"][0]
    if "file" in published:
        same["file"] = file_bytes(module, published["file"]["dtype"]) == published["file"]["bytes"]
    if "tensors" in published:
        same["tensors"] = parameters * _ITEMSIZE[published["tensors"]["dtype"]] == published["tensors"]["bytes"]
    if "size" in published:
        shown = published["size"]
        size = file_bytes(module, shown["dtype"])
        same["size"] = float(f"{size:.{shown['digits'] - 1}e}") == shown["bytes"]
    return same


def measure(name: str, published: Mapping[str, Any]) -> dict[str, Any]:
    path = str(FOLDER / f"{name}.json")
    start = time.process_time()  # other work on the machine disturbs it less than the clock on the wall
    outline = examine(path)
    seconds = time.process_time() - start
    (part,) = outline.parts
    (module,) = read(path).parts.values()
    assert part.call is not None
    return {
        "class": part.kind, "parameters": part.parameters, "layers": len(outline.graph.layers),
        "layer_parameters": total_parameters(outline.graph), "call": vars(part.call),
        "macs": total_macs(outline.graph), "cpu_seconds": round(seconds, 2),
        "bytes": {row.scheme: row.whole for row in stored(outline.parts, [parse_scheme(text) for text in SCHEMES])},
        "published": published, "same": compare(module, len(outline.graph.layers), published),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "meta_models.json")
    args = parser.parse_args()
    models = {}
    examine("scenes", ["unet"])  # imports what is imported at first use
    for name, published in counts().items():
        models[name] = row = measure(name, published)
        same = ", ".join(f"{what} {same}" for what, same in row["same"].items())
        print(f"{name}: {row['parameters']:,} parameters, {row['layers']} layers, {row['macs'] / 1e12:.3g} TMACs, "
              f"{row['cpu_seconds']} s, {same}")  # fmt: skip
    about = {
        "machine": platform.processor() or platform.machine(), "python": platform.python_version(),
        "torch": torch.__version__, "threads": torch.get_num_threads(),
        "peak_MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }  # fmt: skip
    args.out.write_text(json.dumps({"about": about, "models": models}, indent=1) + "\n")
    print(f"all the same: {all(all(row['same'].values()) for row in models.values())}")


if __name__ == "__main__":
    main()
