"""What files hold and what this machine can do, as text."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tabulate import tabulate

from planner.checking import corrections_of
from planner.errors import UserError
from planner.graph import LayerGraph, from_json
from planner.refining import contests
from planner.role_tables import model_roles, plan_roles
from planner.store import Profile, open_profile
from planner.units import show_bytes, show_milliseconds
from plans.plan import Plan, load_plan

if TYPE_CHECKING:
    from plans.kernels import Kernel

STEP_NAMES = {"bytes": "MiB", "ms": "millisecond"}  # the steps of `recording.STEPS`
AROUND = "25%"  # memory of the plan by which undecided layers are told
_SHOWN = 5  # of those, and of pinned layers
EXTRAS = {
    "ray": "measuring by many workers",
    "highspy": "the HiGHS solver",
    "triton": "GPU kernels",
    "peft": "LoRA adapters",
    "lpips": "the perceptual metric",
}


def inspect_file(path: Path, profile: Path | None = None) -> str:
    """A summary of a profile (an SQLite file) or else of a plan, with its profile by role, too. Raises ProfileError,
    PlanError, UserError."""
    try:
        with path.open("rb") as file:
            is_profile = file.read(6) == b"SQLite"
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; check the path") from None
    if is_profile and profile is not None:
        raise UserError(f"{path} is a profile itself; --profile goes with a plan")
    return _profile_text(path) if is_profile else plan_text(load_plan(path), profile)


def plan_text(plan: Plan, profile: Path | None = None) -> str:
    """Model, how the solver ended, predicted sums, and how many layers took each scheme; by its profile also each
    role's share."""
    total = plan.predictions.get("total", {})
    counts = Counter(plan.schemes.values())
    lines = [
        f"plan for {plan.model['name']} ({len(plan.schemes)} layers, fingerprint {plan.model['fingerprint'][:12]})",
        f"solver: {plan.solver['status']}" + _proof(plan),
        "budgets: "
        + (", ".join(f"{name} <= {_amount(name, limit)}" for name, limit in plan.budgets.items()) or "none"),
        "predicted: " + ", ".join(f"{name} {_amount(name, value)}" for name, value in total.items()),
        "schemes: " + ", ".join(f"{scheme} x {count}" for scheme, count in counts.most_common()),
    ]
    lines += _worth(plan)
    if pins := plan.solver.get("pins"):
        lines.append("pinned: " + _pinned(pins))
    if "confidence" in plan.solver:
        lines.append(f"confidence: planned with each loss at its upper bound of {plan.solver['confidence']:.4g}")
    if plan.simulated:
        lines.append(f"simulated: {len(plan.simulated)} layers have no real kernel; apply with --kernels fake")
    if profile is not None:
        with open_profile(profile) as store:
            lines += [table for table in [plan_roles(plan, store)] if table]
    return "\n".join(lines)


def _pinned(pins: Mapping[str, str]) -> str:
    """Layer by layer, or, where rules pinned many, how many to which scheme."""
    if len(pins) <= _SHOWN:
        return ", ".join(f"{layer} = {scheme}" for layer, scheme in pins.items())
    return ", ".join(f"{count} layers = {scheme}" for scheme, count in Counter(pins.values()).most_common())


def _proof(plan: Plan) -> str:
    if "bound" not in plan.solver:
        return ""
    return f" by {plan.solver['backend']}, objective {plan.solver['objective']:.6g}, bound {plan.solver['bound']:.6g}"


def _worth(plan: Plan) -> list[str]:
    """What binds: from what more of a budget was found to save, else from what the relaxation prices."""
    objective, lines = plan.solver.get("objective", 0.0), []
    for column, saved in plan.solver.get("worth", {}).items():
        share = f", {saved / objective:.2%} of it" if objective else ""
        more = f"one more {STEP_NAMES[column]} saves {saved:.3g} of the objective{share}"
        lines.append(
            f"{column} binds: {more}" if saved > 0 else f"{column} does not bind at one more {STEP_NAMES[column]}"
        )
    priced = [name for name, price in plan.solver.get("prices", {}).items() if price > 0]
    if priced and "worth" not in plan.solver:
        lines.append(f"priced by the relaxation: {', '.join(priced)}")
    return lines


def _amount(name: str, value: float) -> str:
    if name == "bytes":
        return f"{value:,} ({show_bytes(value)})"
    return show_milliseconds(value) if name == "ms" else f"{value:.4g}"


def _profile_text(path: Path) -> str:
    with open_profile(path) as store:
        header, costs, measured = store.header(), store.costs(), store.measured()
        wanted = {(c.layer, c.scheme) for c in costs if c.scheme != "keep"}
        rows = [_scheme_row(store.measurements(), costs, scheme) for scheme in store.schemes()]
        settings, layers, known = header["settings"], len(store.layers()), certainty(store)
        graph = from_json(store.graph()) if layers else None
        roles = model_roles(graph) if graph else ""
        kinds = layers_text(graph) if graph and "source" not in header else []
    # costs name the candidates; a share of a profile may lack them
    counted = f"{len(wanted & measured)} of {len(wanted)}" if wanted else str(len(measured))
    lines = [
        f"profile of {header['model']['name']} ({layers} layers, fingerprint {header['model']['fingerprint'][:12]})",
        f"measured: {counted} (layer, scheme), on {len(settings['prompts'])} prompts, "
        f"{settings['generation']['steps']} steps",
        *kinds,
        *known,
        *([f"by role:\n{roles}"] * bool(roles)),
        "all layers at one scheme, sums:",
        str(tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)),
    ]
    return "\n".join(lines)


def layers_text(graph: LayerGraph) -> list[str]:
    """How many layers there are of each kind, and which modules are no layers to plan, and why."""
    kinds = Counter(layer.kind for layer in graph.layers)
    lines = ["kinds: " + ", ".join(f"{kind} {count:,}" for kind, count in kinds.most_common())]
    reasons = dict(graph.reasons)
    alike: dict[str, list[str]] = {}
    for address in graph.unused:
        alike.setdefault(reasons.get(address, "the run never called it"), []).append(address)
    return lines + [
        f"not planned: {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "") + f": {why}"
        for why, names in alike.items()
    ]


def certainty(store: Profile) -> list[str]:
    """Where the losses came from, what checks showed, and which layers' order is undecided in a plan of `AROUND`."""
    counts = Counter(m.source for m in store.measurements())
    lines = ["losses from: " + ", ".join(f"{source} {count:,}" for source, count in counts.most_common())]
    for metric, fit in corrections_of(store).items():
        moved = f"moved by x{fit.factor(math.exp(fit.low)):.2f} (smallest) to x{fit.factor(math.exp(fit.high)):.2f}"
        said = moved if fit.applies else "left as they are"
        lines.append(f"{metric}: {fit.checks} checks scatter by x{math.exp(fit.scatter):.2f}, estimates {said}")
    try:
        open_ = contests(store, AROUND)
    except ValueError:  # not finished, or no plan that small: nothing to be undecided about
        return lines
    layers = list(dict.fromkeys(contest.group for contest in open_))
    some = ", ".join(layers[:_SHOWN]) + (f" and {len(layers) - _SHOWN} more" if len(layers) > _SHOWN else "")
    return [*lines, f"undecided at {AROUND} memory: " + (f"{len(layers)} layers, {some}" if layers else "nothing")]


def _scheme_row(measurements: tuple, costs: tuple, scheme: str) -> dict[str, str]:  # type: ignore[type-arg]
    mine = [cost for cost in costs if cost.scheme == scheme]
    row = {
        "scheme": scheme + " (simulated)" * any(cost.simulated for cost in mine),
        "layers": str(len(mine)),
        "bytes": show_bytes(sum(cost.bytes for cost in mine)),
        "ms": f"{sum(cost.ms or 0 for cost in mine):.4g}",
    }
    sums: Counter[str] = Counter()
    for m in measurements:
        sums[m.metric] += m.mean if m.scheme == scheme else 0
    return row | {metric: f"{value:.4g}" for metric, value in sums.items()}


def _kernel_text(kernel: Kernel) -> str:
    """Real or simulated, what it does, and why it does not run here if it does not."""
    import torch

    reasons = [kernel.available(torch.device(device)) for device in ("cuda", "cpu")]
    here = "" if None in reasons else f" (not here: {reasons[0 if torch.cuda.is_available() else 1]})"
    return f"{'real' if kernel.real else 'simulated'}: {kernel.says}{here}"


def doctor_text() -> str:
    """Which kernels, solvers, metrics and extras are available here, or why not."""
    import torch

    from planner.engines import ENGINES
    from planner.methods import METHODS
    from plans.formats import FORMATS
    from plans.kernels import KERNELS
    from plans.kinds import KINDS
    from sensitivity.metrics import METRICS
    from solvers.backends import BACKENDS
    from solvers.strategies import STRATEGIES

    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = [("torch", str(torch.__version__), f"{torch.get_num_threads()} threads, device {device}")]
    rows += [("format", name, fmt.says) for name, fmt in FORMATS.items()]
    rows += [("layer", name, f"nn.{kind.layer}: {kind.says}") for name, kind in KINDS.items()]
    rows += [("kernel", name, _kernel_text(kernel)) for name, kernel in KERNELS.items()]
    rows += [("solver", s.name, s.about) for s in STRATEGIES]
    rows += [("backend", b.name, b.missing() or f"ready: {b.about}") for b in BACKENDS]
    rows += [("metric", f"{m.family}: {name}", m.missing() or m.says) for name, m in METRICS.items()]
    rows += [("method", name, method.says) for name, method in METHODS.items()]
    rows += [("engine", name, engine.missing() or f"ready: {engine.about}") for name, engine in ENGINES.items()]
    for name, what in EXTRAS.items():
        version = importlib.metadata.version(name) if importlib.util.find_spec(name) else None
        rows.append(("extra", name, f"{what}: {version or f'not installed; pip install {name}'}"))
    return str(tabulate(rows, headers=("part", "name", "state"), tablefmt="github", disable_numparse=True))
