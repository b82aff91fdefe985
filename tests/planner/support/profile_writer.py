"""Fills a profile like a measuring process and prints its progress: `python profile_writer.py PATH`."""

from __future__ import annotations

import os
import sys

from bitplan.planner.profiles.profile import Profile
from bitplan.sensitivity.table import Measurement

MODEL = {"name": "toy", "fingerprint": "ab" * 32, "architecture": "12" * 32, "components": ["unet"]}
HEADER = {"model": MODEL, "settings": {"steps": 4, "prompts": ["a circle", "a square"]}, "fingerprint": "ab12"}
SCHEMES = ("w8a8", "w4g64a8", "w2g64a8", "keep")
FAMILIES = {"noise": "quality", "ssim": "quality", "clip": "alignment", "drift": "alignment"}
LAYERS = 40


def layer(address: str, *weight: int) -> dict[str, object]:
    """The facts of a linear layer."""
    shape = list(weight) or [4, 4]
    return {
        "address": address, "aliases": [], "kind": "linear", "weight": shape, "bias": False,
        "parameters": shape[0] * shape[1], "geometry": None, "calls": [],
    }  # fmt: skip


def graph(*layers: dict[str, object]) -> dict[str, object]:
    return {"layers": list(layers), "edges": [], "shared_inputs": [], "tied": [], "unused": []}


GRAPH = graph(*(layer(f"unet.{i}", 4, i + 1) for i in range(LAYERS))) | {"edges": [["unet.1", "unet.0"]]}


def measure(layer: str, scheme: str) -> list[Measurement]:
    base = (int(layer.split(".")[1]) + 1) / (SCHEMES.index(scheme) + 3)
    return [Measurement(layer, scheme, metric, base / len(metric), base / 7, 8) for metric in FAMILIES]


def fill(path: str, note=print) -> None:
    with Profile.create(path, HEADER) as profile:
        profile.write_graph(GRAPH, SCHEMES)
        done = profile.measured()
        for layer in profile.layers():
            for scheme in SCHEMES:
                if (layer, scheme) not in done:
                    profile.write_measurements(measure(layer, scheme), FAMILIES)
                    note(layer, scheme)


if __name__ == "__main__":
    # one system call a line: a kill in its midst must not leave half an acknowledgement
    fill(sys.argv[1], lambda *done: os.write(1, f"{' '.join(done)}\n".encode()))
