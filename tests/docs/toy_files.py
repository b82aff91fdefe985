"""The files of the toy members: each is all the code that its recipe asks for."""

from __future__ import annotations

FILES = {
    "toy_format.py": """
from bitplan.plans.formats.base import Format
import torch

def quantize(weight, fmt):
    return {"codes": weight.to(torch.bfloat16)}

def dequantize_rows(packed, start, stop):
    return packed.tensors["codes"][start:stop].float()

def grid(weight, fmt):
    return {}

def on_grid(weight, grid):
    return weight.to(torch.bfloat16).float()

def stored_bytes(outputs, inputs, fmt, keep_itemsize):
    return 2 * outputs * inputs

def layout(outputs, inputs, fmt):
    return {"codes": torch.empty(outputs, inputs, dtype=torch.bfloat16, device="meta")}

TOY = Format(quantize, dequantize_rows, grid, on_grid, stored_bytes, layout)
""",
    "toy_inputs.py": """
from bitplan.plans.inputs.base import Inputs
import torch

def fake(x, fmt, scales):
    return x.to(torch.bfloat16).to(x.dtype)

TOY = Inputs(fake)
""",
    "toy_transform.py": """
from bitplan.plans.transforms.base import Transform
import torch

def fit(weights, observed, numbers):
    largest = torch.stack([weight.flatten(0, -2).abs().amax(0) for weight in weights]).amax(0)
    return {"factor": largest.clamp(min=1e-3)}

def layout(outputs, channels, numbers):
    return {"factor": torch.empty(channels, device="meta")}

def weight(x, fitted, numbers):
    return x / fitted["factor"]

def inputs(x, fitted, numbers):
    return x * fitted["factor"]

TOY = Transform(fit, layout, weight, inputs)
""",
    "toy_kernel.py": """
from bitplan.plans.kernels.base import FLOAT_INPUTS, Kernel, declines_geometry, on_cpu
from bitplan.plans.kernels.reference import REFERENCE

def run(x, held):
    return REFERENCE.run(x, held)

TOY = Kernel("toy", "as the reference", True, FLOAT_INPUTS, on_cpu, run, declines_geometry)
""",
    "toy_metric.py": """
def square(full, variant):
    return 3 * (full.double() - variant.double()).square().flatten(1).mean(1)
""",
    "toy_method.py": """
from bitplan.planner.measurement.jobs import JobResult
from bitplan.sensitivity.metrics import TEXT_TO_IMAGE

def measure(worker, job):
    for pair in job.pairs:
        yield JobResult(pair, responses=dict.fromkeys(TEXT_TO_IMAGE), readings=dict.fromkeys(TEXT_TO_IMAGE))
""",
    "toy_engine.py": """
from bitplan.planner.measurement.methods import run_job

def missing(cluster):
    return None

def run(setup, jobs, local_worker, cluster):
    worker = local_worker()
    for job in reversed(jobs):
        yield from run_job(worker, job)
""",
    "toy_strategy.py": """
from bitplan.solvers.strategies import lagrangian
from bitplan.solvers.strategies.base import Strategy

def run(problem, effort):
    return lagrangian.run(problem, effort)

TOY = Strategy("toy", "a toy", run)
""",
    "toy_backend.py": """
from bitplan.solvers.programs.backends import highs

def missing():
    return highs.missing()

def place():
    return highs.place()

def run(program, time_limit, gap):
    return highs.run(program, time_limit, gap)
""",
    "toy_target.py": """
from bitplan.planner.targets.base import Target
from bitplan.plans.kernels.base import FLOAT_INPUTS
from bitplan.plans.scheme import KEEP
from bitplan.plans.takes import Takes

TAKES = Takes({"int": {"bits": (8, 4)}, "keep": {}}, {"float": {}}, ())
MENU, LOST, USE = ("w8a16", "w4a16"), "nothing", "read {file}"

def refuses(scheme, layer):
    return "linear layers only" if layer.kind != "linear" and scheme != KEEP else None

def text(part):
    return "".join(f"{path} {scheme}\\n" for path, scheme in part.schemes.items())

def stored(scheme, layer, itemsize):
    return layer.weight[0] * layer.weight[1] * itemsize

TOY = Target("toy", "a toy", TAKES, MENU, refuses, stored, text, LOST, USE)
""",
}
