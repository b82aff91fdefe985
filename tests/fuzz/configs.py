"""Pipelines' own configurations with edited values, sizes among them: read alone, and loaded with their weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.fuzz.case import Case, command
from tests.fuzz.values import CANARY, mutated, nasty, spoilt, text_of
from tests.fuzz.world import copied

FILES = ("unet/config.json", "unet/config.json", "unet/config.json", "scheduler/scheduler_config.json",
         "model_index.json")  # fmt: skip
SIZES = (0, -1, 1, 3, 7, 10**3, 2**16, 2**24, 2**31 - 1, 2**31, 2**40, 2**63 - 1, 2**63, 10**30, 0.5, 1e308, True)
REPEATED = ("layers_per_block",)  # a Python loop runs so often, and docs/security.md sets no limit to the work
NAMES = ("sample_size", "in_channels", "out_channels", "block_out_channels", "norm_num_groups", "attention_head_dim",
         "layers_per_block", "num_train_timesteps", "num_class_embeds", "freq_shift", "norm_eps",
         "mid_block_scale_factor", "beta_end")  # fmt: skip


def run(case: Case) -> None:
    """Spoils a configuration of a good pipeline, and gives its folder and its files to commands."""
    random = case.random
    folder = copied(case.world.pipeline, case.box.inputs)
    edits = random.choice((0, 1, 1, 1, 1, 2))
    for _ in range(edits):
        _spoil(case, folder / random.choice(FILES))
    place = random.choice((folder, folder, folder / "unet/config.json", folder / "model_index.json"))
    inspected = command(case, "inspect", "--config", place, *random.choice(((), ("--json",))))
    prompts = case.box.inputs / "prompts.yaml"
    prompts.write_text("- {}\n")
    out = case.box.out / "x.png"
    applied = command(case, "apply", case.world.pipeline_plan, folder, "--prompts", prompts, "--steps", 1,
                      "--out", out)  # fmt: skip
    if applied.accepted != any(case.box.out.glob("x*")):
        case.find("exit code 0 without a picture, or the reverse", (applied.err, case.edits))
    if not edits and not (applied.accepted and inspected.accepted):
        case.find("a good pipeline is refused", (applied.err, inspected.err))


def _spoil(case: Case, path: Path) -> None:
    random = case.random
    if random.random() < 0.1:
        path.write_bytes(spoilt(path.read_bytes(), random))
        case.edits.append(f"bytes of {path.name}")
        return
    try:
        data = json.loads(path.read_text("utf-8", "surrogatepass"))
    except (ValueError, RecursionError):  # an earlier edit spoilt it
        return
    if random.random() < 0.6 and isinstance(data, dict):
        key = random.choice([key for key in data if key in NAMES] or [*data])
        value: Any = random.choice(SIZES) if random.random() < 0.8 else nasty(random)
        data[key] = [value] if isinstance(data[key], list) and random.random() < 0.8 else value
        case.edits.append(f"{path.name}: {key} = {str(data[key])[:80]}")
    elif random.random() < 0.2 and isinstance(data, dict):
        key, value = random.choice(_EXTRA)
        data[key] = value
        case.edits.append(f"{path.name}: {key} = {value}")
    else:
        data = mutated(data, random)
        case.edits.append(f"{path.name} = {str(data)[:300]}")
    path.write_text(text_of(_bounded(data)).replace("@box", str(case.box.root)), "utf-8", "surrogatepass")


def _bounded(data: Any) -> Any:
    """The data without counts of loops that would take all the time of the case."""
    if isinstance(data, dict):
        for key in REPEATED:
            if isinstance(data.get(key), int) and data[key] > 5:
                data[key] = 5
    return data


_EXTRA: tuple[tuple[str, Any], ...] = (
    ("auto_map", {"AutoModel": f"{CANARY}.Metric"}), ("_class_name", CANARY), ("_class_name", "DDPMPipeline"),
    ("_class_name", "UNet2DConditionModel"), ("_class_name", "AutoencoderKL"), ("_diffusers_version", "9" * 400),
    ("_name_or_path", "../../sibling"), ("quantization_config", {}), ("quantization_config", {"quant_method": "gptq"}),
    ("quantization_config", {"quant_method": CANARY}), ("quantization_config", [1]), ("torch_dtype", "float7"),
    ("trained_betas", [0.1] * 4), ("trained_betas", f"{CANARY}:pipe"), ("dtype", CANARY), ("_module", CANARY),
)  # fmt: skip
