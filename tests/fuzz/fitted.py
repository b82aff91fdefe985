"""Plans with fitted parameters in a file beside them, whose names, tensors and bytes are edited."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tests.fuzz.case import Case, command
from tests.fuzz.packed import parts_of, write_parts
from tests.fuzz.plans import accepted, yaml_text
from tests.fuzz.values import PATHS, TEXTS, mutated, spoilt, text_of
from tests.fuzz.world import LAYERS, TIED, copied, plan_data

TERM = "+even"  # of the tests' own members: no transform of BitPlan's has fitted parameters


def run(case: Case) -> None:
    """Makes such a plan for the pipeline, spoils a copy of it, reads and applies it."""
    from tests.toys import registered

    random = case.random
    with registered():
        path = _made(case)
        edits = random.choice((0, 1, 1, 1, 1, 1, 2))
        for _ in range(edits):
            random.choice(_EDITS)(case, path)
        inspected = command(case, "inspect", path, *random.choice(((), ("--json",))))
        if inspected.accepted:
            accepted(case, path)
            _check(case, path)
        out = case.box.out / "x.png"
        prompts = case.box.inputs / "prompts.yaml"
        prompts.write_text("- {}\n")
        pipeline = copied(case.world.pipeline, case.box.inputs)
        applied = command(case, "apply", path, pipeline, "--prompts", prompts, "--steps", 1, "--out", out,
                          "--kernels", "fake")  # fmt: skip
        if applied.accepted != any(case.box.out.glob("x*")):
            case.find("exit code 0 without a picture, or the reverse", (applied.err, case.edits))
        if applied.accepted and not inspected.accepted:
            case.find("a plan that inspect refuses is applied", (inspected.err, case.edits))
        if not edits and not applied.accepted:
            case.find("a good plan with fitted parameters is not applied", applied.err)


def _made(case: Case) -> Path:
    """A plan with fitted parameters in the folder of the case."""
    from bitplan.plans.parameters import encoded
    from bitplan.plans.plan import load_plan, save_plan

    header, _ = parts_of(case.world.pipeline / "unet/diffusion_pytorch_model.safetensors")
    layers = [f"unet.{name}" for name in LAYERS]
    widths = {layer: header[f"{layer.removeprefix('unet.')}.weight"]["shape"][1] for layer in layers}
    scales = {(layer, TERM): {"scale": np.full(width, 0.5, np.float32)} for layer, width in widths.items()}
    del scales[TIED[1], TERM]
    plan = load_plan(case.world.pipeline_plan)
    schemes = {layer: f"w8a8{TERM}" if layer in layers else scheme for layer, scheme in plan.schemes.items()}
    groups = ({"members": TIED, "transforms": [TERM]},)
    path = case.box.inputs / "f.plan.yaml"
    save_plan(replace(plan, schemes=schemes, groups=groups, fitted=encoded(scales)), path)
    return path


def _check(case: Case, path: Path) -> None:
    """The fitted parameters of a plan that was read are finite."""
    from bitplan.plans.plan import load_plan

    for arrays in load_plan(path).parameters.values():
        if not all(np.isfinite(array.astype(np.float64)).all() for array in arrays.values()):
            case.find("fitted parameters that are not finite are read", case.edits)


def _beside(path: Path) -> Path:
    return path.with_name("f.plan.safetensors")


def _sealed(case: Case, path: Path) -> None:
    """Writes the digest of the file into the plan, mostly."""
    try:
        data = plan_data(path)
        if case.random.random() < 0.95 and _beside(path).is_file():
            data["parameters"]["sha256"] = hashlib.sha256(_beside(path).read_bytes()).hexdigest()
            path.write_text(yaml_text(data), "utf-8", "surrogatepass")
    except (TypeError, KeyError, ValueError, RecursionError, yaml.YAMLError):  # an earlier edit spoilt it
        return


def _text(case: Case, path: Path) -> None:
    """Edits what the plan says of them."""
    random = case.random
    try:
        data = plan_data(path)
    except (ValueError, RecursionError, yaml.YAMLError):
        return
    if not isinstance(data, dict):
        return
    part = random.choice(("parameters", "parameters", "groups", "groups", "schemes"))
    if part == "parameters" and random.random() < 0.5 and isinstance(data.get(part), dict):
        name = random.choice((*PATHS, *TEXTS, "g.plan.safetensors", "F.PLAN.safetensors", "f.plan.safetensors/"))
        data[part][random.choice(("file", "file", "sha256"))] = name
    else:
        data[part] = mutated(data.get(part), random)
    path.write_text(yaml_text(data).replace("@box", str(case.box.root)), "utf-8", "surrogatepass")
    case.edits.append(f"{part} = {str(data[part])[:200]}")


def _header(case: Case, path: Path) -> None:
    if not _beside(path).is_file():
        return
    header, body = parts_of(_beside(path))
    if header is not None:
        write_parts(_beside(path), text_of(mutated(header, case.random)).encode("utf-8", "surrogatepass"), body)
        case.edits.append("header of the fitted parameters")
        _sealed(case, path)


def _tensor(case: Case, path: Path) -> None:
    """Gives a tensor other numbers, another type, shape or name."""
    from safetensors.numpy import load_file, save

    random = case.random
    if not _beside(path).is_file():
        return
    try:
        arrays = load_file(_beside(path))
    except Exception:  # an earlier edit spoilt it
        return
    name = random.choice(sorted(arrays))
    kind, changes = random.randrange(3), dict(arrays)
    if kind == 0:
        changes[name] = arrays[name].copy()
        changes[name][: random.choice((1, 100))] = np.float32(random.choice(_VALUES))
    elif kind == 1:
        changes[name] = random.choice(_SHAPES)(arrays[name])
    else:
        changes[str(random.choice(_NAMES)).replace("NAME", name)] = changes.pop(name)
    try:
        _beside(path).write_bytes(save(changes))
    except Exception:  # such as a name that is not Unicode
        return
    case.edits.append(f"{name}: {('numbers', 'shape', 'name')[kind]} {[*changes][-1][:40]!r} {changes.get(name)!r:.80}")
    _sealed(case, path)


def _bytes(case: Case, path: Path) -> None:
    if _beside(path).is_file():
        _beside(path).write_bytes(spoilt(_beside(path).read_bytes(), case.random))
        case.edits.append("bytes of the fitted parameters")
        _sealed(case, path)


def _place(case: Case, path: Path) -> None:
    """Puts a link, a FIFO, a folder or nothing in the place of the file."""
    place, kind = _beside(path), case.random.randrange(5)
    if place.is_dir():
        return
    data = place.read_bytes() if place.is_file() else b""
    place.unlink(missing_ok=True)
    if kind == 0:
        place.symlink_to(case.random.choice((f"{case.box.root}/sibling/victim.yaml", "../sibling", place.name, "gone")))
    elif kind == 1:
        (case.box.root / "sibling" / "there").write_bytes(data)
        place.symlink_to("../sibling/there")
    elif kind == 2:
        os.mkfifo(place)
    elif kind == 3:
        place.mkdir()
    case.edits.append(f"{place.name} is {('a link', 'a link to the same', 'a FIFO', 'a folder', 'gone')[kind]}")


_VALUES = (float("nan"), float("inf"), -float("inf"), 0.0, -0.0, -1.0, 3e38, 1e-45, 1e-38, 1.0)
_SHAPES: tuple[Callable[[Any], Any], ...] = (
    lambda a: a[:-1], lambda a: np.concatenate([a, a]), lambda a: a[:0], lambda a: a[None], lambda a: a[:1].reshape(()),
    lambda a: a.astype(np.float16), lambda a: a.astype(np.float64), lambda a: a.astype(np.int64), lambda a: a > 0,
    lambda a: a.astype(np.float64) * 1e300,
)  # fmt: skip
_NAMES = (
    "NAME.more", "even.scale", "+even.scale", "NAME+even.scale", "unet.conv_in+odd.scale", "unet.gone+even.scale",
    "unet.conv_in+even.other", "unet.conv_in+first.scale", f"{TIED[1]}+even.scale", "NAME.", *TEXTS[:12],
)  # fmt: skip
_EDITS = (_text, _text, _header, _tensor, _tensor, _tensor, _bytes, _place)
