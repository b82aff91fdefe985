"""Every method of diffusers that copies weights by name is known, and what it is called with shares all else."""

from __future__ import annotations

import ast
import copy
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

import bitplan
from bitplan.planner.applied.derived import float_copy
from bitplan.planner.applied.saved import check_saved
from bitplan.planner.applied.wrapped import WRAPPERS
from bitplan.planner.errors import UserError
from bitplan.plans.layers.modules import is_packed
from tests.packed import plan_for
from tests.zoo import ZOO

torch.set_num_threads(1)


def test_a_copy_shares_all_but_packed_layers() -> None:
    pipe = ZOO["StableDiffusionPipeline"].build()
    model = bitplan.apply(pipe, plan_for(pipe)).unet
    plain = float_copy(model)
    packed = {path for path, layer in model.named_modules() if is_packed(layer)}
    for path, tensor in model.named_parameters():
        owner = path.rpartition(".")[0]
        assert owner in packed or plain.get_parameter(path) is tensor
    assert float_copy(plain) is plain and float_copy("x") == "x"
    with pytest.raises(UserError, match="moved away between calls.*make it from the float model"):
        float_copy(copy.deepcopy(model).to("meta"))


def is_read(call: ast.AST, names: set[str]) -> bool:
    """Whether a call loads the state dict of an argument of the function."""
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
        return False
    root: Any = call.func
    while isinstance(root, (ast.Attribute, ast.Subscript, ast.Call)):
        root = root.func if isinstance(root, ast.Call) else root.value
    return call.func.attr == "state_dict" and isinstance(root, ast.Name) and root.id in names


def test_all_methods_that_copy_weights_are_wrapped() -> None:
    root, found = Path(diffusers.__file__).parent, set()
    for file in (root / "models").rglob("*.py"):
        if ".state_dict()" not in (text := file.read_text()):
            continue
        module = ".".join(("diffusers", *file.relative_to(root).with_suffix("").parts))
        for owner in (node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)):
            for method in (node for node in owner.body if isinstance(node, ast.FunctionDef)):
                names = {argument.arg for argument in method.args.args} - {"self", "cls"}
                loads = any(
                    isinstance(node, ast.Attribute) and node.attr == "load_state_dict" for node in ast.walk(method)
                )
                if loads and any(is_read(node, names) for node in ast.walk(method)):
                    found.add((module, owner.name, method.name))
    assert found - {row[:3] for row in WRAPPERS} == set() and len(found) > 10


@pytest.mark.parametrize("name", ZOO)
def test_every_class_of_the_zoo_can_be_saved(name: str) -> None:
    pipe = ZOO[name].build()
    bitplan.apply(pipe, plan_for(pipe, ZOO[name].iterates, ("w8a16",)), kernels="fake")
    for component in ZOO[name].iterates:
        check_saved(getattr(pipe, component))
