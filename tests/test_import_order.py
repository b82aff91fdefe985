"""Every module can be the first one that a process imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.test_architecture import ROOMS, ROOT

# The parent imports the libraries once, and each child a module of BitPlan. In the second batch diffusers is not there
# yet: a hook on its import is what made the order of imports matter.
LOADED = """
import torch, diffusers, ray, fastapi, uvicorn, plotly.graph_objects, scipy.ndimage, tabulate, jinja2, highspy, pulp
import diffusers.models.modeling_utils, networkx, jsonschema, rich.console, click, wrapt, tqdm, PIL.Image, torch.library
from diffusers import DiffusionPipeline
from transformers import AutoTokenizer, CLIPModel, PreTrainedModel
"""
CHILDREN = """
import os, sys, importlib
{libraries}
failed = []
for name in sys.argv[1:]:
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            importlib.import_module(name)
        except BaseException as error:
            os.write(writer, f"{{name}}: {{type(error).__name__}}: {{error}}".encode()[:4000])
            os._exit(1)
        os._exit(0)
    os.close(writer)
    if os.waitpid(child, 0)[1]:
        failed.append(os.read(reader, 4096).decode() or f"{{name}}: it ended the process")
    os.close(reader)
print("\\n".join(failed))
"""


def modules() -> list[str]:
    files = [path.relative_to(ROOT) for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    names = {".".join(("bitplan", *file.with_suffix("").parts)).removesuffix(".__init__") for file in files}
    return ["bitplan", *sorted(names)]


def failures(libraries: str, names: list[str]) -> str:
    code = CHILDREN.format(libraries=libraries)
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_every_module_can_be_imported_first() -> None:
    names = modules()
    assert len(names) > 200
    assert failures(LOADED, names) == ""


def test_quantizers_can_be_imported_before_their_libraries() -> None:
    names = [name for name in modules() if name.startswith("bitplan.planner.applied")]
    assert len(names) > 5
    assert failures("import torch, huggingface_hub", names) == ""


def test_a_module_that_cannot_be_imported_is_named(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text("import bitplan\nimport nothing_of_this_name\n")
    libraries = f"sys.path.append({str(tmp_path)!r})"
    assert "odd: ModuleNotFoundError" in failures(libraries, ["bitplan", "odd"])
