"""The files of each export target name the layers as the tool reads them."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
import yaml

from bitplan.planner.interop.export import export_files
from bitplan.planner.interop.model import Model
from bitplan.planner.targets import TARGETS
from bitplan.planner.targets.gguf import TYPES
from bitplan.plans.scheme import KEEP, parse_scheme
from tests.planner.support.exporting import mixed, plan_for

# --- the files


def exported(to: str, model: Model, out: Path) -> tuple[dict[str, str], str]:
    """Returns path -> scheme as written, and the text."""
    (export,) = export_files(plan_for(model, mixed(model.layers)), model, TARGETS[to], out, approximate=True)
    return {address.removeprefix("unet."): scheme for address, scheme in export.schemes.items()}, out.read_text()


def test_torchao_names_what_is_quantized_and_nothing_else(model: Model, tmp_path: Path) -> None:
    schemes, text = exported("torchao", model, tmp_path / "x")
    data = json.loads(text)
    named = data["quant_type"]["default"]["_data"]["fqn_to_config"]
    assert data["quant_method"] == "torchao"
    assert list(named) == [path for path, scheme in schemes.items() if scheme != "keep"]
    kinds = {"w8a8": "Int8DynamicActivationInt8WeightConfig", "w8a16": "Int8WeightOnlyConfig"}
    for path, entry in named.items():
        assert entry["_type"] == kinds.get(schemes[path], entry["_type"])


def test_sdnq_names_every_layer_once(model: Model, tmp_path: Path) -> None:
    others = dataclasses.replace(model, unplanned=("unet.spare.0", "vae.spare"))
    schemes, text = exported("sdnq", others, tmp_path / "x")
    data = json.loads(text)
    quantized = [name for names in data["modules_dtype_dict"].values() for name in names]
    assert sorted(quantized + data["modules_to_not_convert"]) == sorted(f"{p}.weight" for p in [*schemes, "spare.0"])
    for dtype, names in data["modules_dtype_dict"].items():
        for name in names:
            weight = parse_scheme(schemes[name.removesuffix(".weight")]).weight
            assert dtype == ("float8_e4m3fn" if weight.kind == "fp8" else f"{'u' * weight.affine}int{weight.bits}")
    assert not (data["add_skip_keys"] or data["minimum_allowed_numel"] or data["minimum_allowed_channel_size"])


def test_modelopt_disables_all_and_enables_by_exact_name(model: Model, tmp_path: Path) -> None:
    schemes, text = exported("modelopt", model, tmp_path / "x")
    first, *entries = yaml.safe_load(text)["quant_cfg"]
    assert first == {"quantizer_name": "*", "enable": False}
    cfg = {entry["quantizer_name"]: entry["cfg"] for entry in entries}
    assert len(cfg) == len(entries) and not any(set("*?[") & set(name) for name in cfg)
    for path, text in schemes.items():
        scheme = parse_scheme(text)
        weight, inputs = cfg.get(f"{path}.weight_quantizer"), cfg.get(f"{path}.input_quantizer")
        assert (weight is None) == (scheme == KEEP) and (inputs is None) == (scheme.inputs.bits == 16)
        if weight:
            assert weight["num_bits"] == ([4, 3] if scheme.weight.kind == "fp8" else scheme.weight.bits)
            assert weight.get("block_sizes", {}).get(-1) == scheme.weight.group
        if inputs:
            assert inputs["num_bits"] == scheme.inputs.bits
            assert ("type" not in inputs) == scheme.inputs.static


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_each_tensor_matches_its_own_line_of_a_recipe(prefix: str, model: Model, tmp_path: Path) -> None:
    schemes, text = exported("gguf-recipe", model, tmp_path / "x")
    rules = [word.split("=") for word in text.split()]  # as llama-quantize reads it, which also lower-cases patterns
    assert len(rules) == len(schemes) and "," not in text
    for path, scheme in schemes.items():
        matching = [kind for pattern, kind in rules if re.search(pattern.lower(), f"{prefix}{path}.weight")]
        assert len(matching) == 1
        if scheme == "keep":
            assert matching == ["f16"]
        else:
            fmt, block, _ = TYPES[matching[0]]
            assert fmt == parse_scheme(scheme).weight and model.layers[f"unet.{path}"].weight[1] % block == 0
        assert not any(re.search(pattern, f"{prefix}other.{path}.weight") for pattern, _ in rules)
        assert not any(re.search(pattern, f"{prefix}{path}.bias") for pattern, _ in rules)
