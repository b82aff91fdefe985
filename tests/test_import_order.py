"""Every module can be the first one that a process imports.

A parent process imports other libraries and forks a child for each module of BitPlan. Libraries that the parent has
imported cannot hide a circle among BitPlan's modules, with one exception: two modules of diffusers and transformers,
whose import runs hooks of BitPlan, which import BitPlan. The quantizers are therefore also imported before these two,
and the parent asserts that it has not imported them. A hook that imports the module
`bitplan.planner.applied.diffusers_quantizer` makes the import of that module fail, and with it this test.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from bitplan.planner import applied
from tests.test_architecture import ROOMS, ROOT, without_torch

# Each stage imports its libraries after those of the stages before it.
LIGHT = """
import click, email.parser, highspy, networkx, PIL.Image, pulp, scipy.ndimage, scipy.optimize, sqlite3
import safetensors.numpy, statistics, tqdm, wrapt, yaml
"""
BEFORE_HOOKS = "import torch, accelerate, diffusers.utils.torch_utils, transformers.utils.quantization_config"
AFTER_HOOKS = """
import diffusers.models.modeling_utils
from diffusers import DiffusionPipeline
from transformers import AutoTokenizer, CLIPModel, PreTrainedModel
"""
PARENT = """
import gc, importlib, json, os, sys

def error_of(name):
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            importlib.import_module(name)
        except BaseException as error:
            os.write(writer, f"{name}: {type(error).__name__}: {error}".encode()[:4000])
            os._exit(1)
        os._exit(0)
    os.close(writer)
    with open(reader) as message:
        text = message.read()
    return (text or f"{name}: it ended the process") if os.waitpid(child, 0)[1] else ""

failures = []
for libraries, absent, names in json.load(sys.stdin):
    exec(libraries, {})
    present = {name for name in sys.modules if name in absent or name.partition(".")[0] == "bitplan"}
    assert not present, present
    gc.disable(), gc.freeze()  # children write to fewer pages that they share with their parent
    failures += filter(None, map(error_of, names))
print(*failures, sep="\\n")
"""


def modules() -> set[str]:
    files = [path.relative_to(ROOT) for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    names = {".".join(("bitplan", *file.with_suffix("").parts)).removesuffix(".__init__") for file in files}
    return {"bitplan", *names}


def failures(*stages: tuple[str, tuple[str, ...], list[str]]) -> str:
    """The errors of all stages: each has libraries, modules that these do not import, and modules to import first."""
    command = [sys.executable, "-c", PARENT]
    result = subprocess.run(command, input=json.dumps(stages), capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_every_module_can_be_imported_first() -> None:
    names, light = modules(), {"bitplan", *without_torch()}
    quantizers = {name for name in names if name.startswith("bitplan.planner.applied")}
    assert light < names and len(light) > 100 and len(names - light) > 100 and len(quantizers) > 5
    assert not failures(
        (LIGHT, ("torch", "diffusers", "transformers"), sorted(light)),
        (BEFORE_HOOKS, (applied.DIFFUSERS, applied.TRANSFORMERS), sorted(quantizers)),
        (AFTER_HOOKS, (), sorted(names - light)),
    )


def test_a_module_that_cannot_be_imported_is_named(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text("import bitplan\nimport nothing_of_this_name\n")
    libraries = f"import sys; sys.path.append({str(tmp_path)!r})"
    assert "odd: ModuleNotFoundError" in failures((libraries, (), ["bitplan", "odd"]))
