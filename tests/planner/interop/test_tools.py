"""Exported plans, quantized and run by their tools where these are installed.

The tests search this environment and the folder that BITPLAN_INTEROP names (`make interop`).
"""

from __future__ import annotations

import importlib.machinery
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bitplan.planner.graph.layers import Layer
from bitplan.planner.interop.export import export_files
from bitplan.planner.interop.exports import Export
from bitplan.planner.interop.model import Model
from bitplan.planner.targets import TARGETS
from bitplan.plans.scheme import KEEP, Scheme, parse_scheme
from tests.planner.support.exporting import mixed, plan_for, tiny_model

ROOT = Path(__file__).parents[3]
FOLDER = os.environ.get("BITPLAN_INTEROP", "")
PLACES = [str(Path(FOLDER).absolute())] * bool(FOLDER)
TOOLS = ("torchao", "sdnq", "modelopt")


def installed(tool: str) -> bool:
    return importlib.machinery.PathFinder.find_spec(tool, [*PLACES, *sys.path]) is not None


def read_by(tool: str, file: Path, folder: Path) -> dict[str, Any]:
    """Returns the output of `tests.planner.support.tools` in its own process."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), *PLACES]), "SDNQ_USE_TORCH_COMPILE": "0", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "tests.planner.support.tools", tool, str(file), str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def as_stored(scheme: str, inputs: int) -> str:
    """A group of all inputs counts as no group."""
    group = parse_scheme(scheme).weight.group
    return scheme.replace(f"g{group}", "") if group and group >= inputs else scheme


def written(tool: str, model: Model, out: Path, seed: int) -> Export:
    layers = list(model.layers.items())
    turned = dict(layers[seed:] + layers[:seed])  # so that other layers get each scheme
    schemes = mixed(turned)
    plan = plan_for(model, {layer: schemes[layer] for layer in model.layers})
    (export,) = export_files(plan, model, TARGETS[tool], out, approximate=True)
    return export


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("tool", TOOLS)
def test_the_tool_quantizes_the_layers_named_at_the_bits_named(
    tool: str, seed: int, tiny_folder: Path, tmp_path: Path
) -> None:
    if not installed(tool):
        pytest.skip(f"{tool} is not installed; `make interop` installs it beside this environment")
    model = tiny_model()
    export = written(tool, model, tmp_path / "plan.txt", seed)
    assert len(set(export.schemes.values())) >= 5, "too few schemes to tell anything"
    found = read_by(tool, export.path, tiny_folder)
    layers = {address: found["layers"][address.removeprefix("unet.")] for address in model.layers}
    assert len(found["layers"]) == len(layers) and found["finite"]
    for address, told in layers.items():
        layer = model.layers[address]
        shape = layer.weight
        assert as_stored(told["scheme"], shape[1]) == as_stored(export.schemes[address], shape[1]), address
        check_numbers(tool, parse_scheme(export.schemes[address]), told, layer)


def check_numbers(tool: str, scheme: Scheme, told: dict[str, Any], layer: Layer) -> None:
    """Checks that a group has no more values than the bits allow, and the stored bytes."""
    assert told["bytes"] == TARGETS[tool].holds(scheme, layer, 4), layer.address
    if scheme != KEEP and told["levels"] is not None:
        assert told["levels"] <= 2**scheme.weight.bits
